// The guard program as it is, with a socket in QEMU's place; and a parent that is killed for real.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { workerLocation } from "../../base/worker-location.ts";
import { Guard } from "./guard.ts";

const SHUT_OK = Buffer.from("0001000400000000", "hex");
const PROGRAM = workerLocation("hypervisor/qemu/guard-process").pathname;

let folder: string;
let path: string;
let children: ChildProcess[];
let sockets: Socket[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-guard-"));
  path = join(folder, "migration.sock");
  children = [];
  sockets = [];
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  for (const socket of sockets) socket.destroy();
  rmSync(folder, { recursive: true });
});

/** Whether it has handlers for SIGHUP, SIGINT and SIGTERM (proc(5), status: SigCgt). */
function catchesSignals(pid: number): boolean {
  const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1]!;
  const caught = BigInt(`0x${mask}`);
  return [1n, 2n, 15n].every((signal) => (caught & (1n << (signal - 1n))) !== 0n);
}

/** What QEMU sees of its connection. */
class QemuEnd {
  readonly socket: Socket;
  readonly closed: Promise<unknown>;
  isClosed = false;
  received = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.socket = socket;
    sockets.push(socket);
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
    });
    this.closed = once(socket, "close").then(() => {
      this.isClosed = true;
    });
  }

  async waitFor(bytes: Buffer): Promise<void> {
    while (this.received.length < bytes.length) await once(this.socket, "data");
    expect(this.received).toEqual(bytes);
  }

  /** Resolves when the other side has taken them all. */
  send(bytes: number): Promise<void> {
    return new Promise((resolve) => this.socket.write(Buffer.alloc(bytes), () => resolve()));
  }
}

/** Both ends of QEMU's connection: ours not yet read from. */
async function connected(): Promise<{ ours: Socket; qemu: QemuEnd }> {
  const server = createServer({ pauseOnConnect: true });
  server.listen(path);
  await once(server, "listening");
  const accepted = once(server, "connection");
  const qemu = new QemuEnd(connect(path));
  const [ours] = (await accepted) as [Socket];
  sockets.push(ours);
  server.close();
  return { ours, qemu };
}

describe("the guard program", () => {
  /** With nobody else who holds our end of the connection. */
  async function start(): Promise<{ guard: ChildProcess; qemu: QemuEnd }> {
    const { ours, qemu } = await connected();
    const guard = spawn(process.execPath, [PROGRAM], { stdio: ["pipe", "ignore", "inherit", ours] });
    children.push(guard);
    await once(guard, "spawn");
    ours.destroy();
    return { guard, qemu };
  }

  test("closes the connection without a word when its parent ends before the guest was handed over", async () => {
    const { guard, qemu } = await start();
    guard.stdin!.end();
    await qemu.closed;
    expect(qemu.received.length).toBe(0);
  });

  test("gives QEMU its verdict and takes what it has left to say when its parent ends afterwards", async () => {
    const { guard, qemu } = await start();
    guard.stdin!.end("C");
    await qemu.waitFor(SHUT_OK);
    // More than any socket holds.
    await qemu.send(8 * 1024 * 1024);
    expect(qemu.isClosed).toBe(false);
    qemu.socket.end();
    expect(await once(guard, "exit")).toEqual([0, null]);
  });

  test("does nothing as long as its parent lives, told or not, and is not ended by signals for its parent", async () => {
    const { guard, qemu } = await start();
    guard.stdin!.write("C");
    await vi.waitUntil(() => catchesSignals(guard.pid!), { timeout: 30_000 });
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) guard.kill(signal);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect({ bytes: qemu.received.length, closed: qemu.isClosed }).toEqual({ bytes: 0, closed: false });
    expect({ code: guard.exitCode, signal: guard.signalCode }).toEqual({ code: null, signal: null });
    guard.stdin!.end();
    await qemu.waitFor(SHUT_OK);
  });
});

describe("Guard", () => {
  const notices: string[] = [];
  beforeEach(() => {
    notices.length = 0;
  });

  async function start(): Promise<{ guard: Guard; ours: Socket; qemu: QemuEnd }> {
    const { ours, qemu } = await connected();
    return { guard: Guard.start(ours, (message) => notices.push(message)), ours, qemu };
  }

  test("holds the connection until it is ended, and takes no byte of it", async () => {
    const { guard, ours, qemu } = await start();
    ours.write("to QEMU");
    await qemu.waitFor(Buffer.from("to QEMU"));
    const arrived = once(ours, "data");
    ours.resume();
    qemu.socket.write("from QEMU");
    expect(String((await arrived)[0])).toBe("from QEMU");
    ours.destroy();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(qemu.isClosed).toBe(false);
    guard.end(false);
    await qemu.closed;
    expect(notices).toEqual([]);
  });

  test("once committed it sees to QEMU's completion, unless QEMU is done already", async () => {
    for (const settled of [false, true]) {
      const { guard, ours, qemu } = await start();
      guard.commit();
      ours.destroy();
      guard.end(settled);
      if (settled) await qemu.closed;
      else await qemu.waitFor(SHUT_OK);
      expect(qemu.received.length).toBe(settled ? 0 : SHUT_OK.length);
      qemu.socket.end();
      rmSync(path, { force: true });
    }
    // Nor is it news that it ends with QEMU.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(notices).toEqual([]);
  });

  /** A process that guards a connection and then does as told; it is killed with nothing said. */
  async function killedParent(committed: boolean): Promise<QemuEnd> {
    const script = join(folder, "parent.mjs");
    const guardModule = new URL("guard.js", workerLocation("hypervisor/qemu/guard-process"));
    writeFileSync(
      script,
      `import { connect } from "node:net";
      import { Guard } from ${JSON.stringify(guardModule.href)};
      const ours = connect(${JSON.stringify(path)});
      ours.pause();
      ours.once("connect", () => {
        const guard = Guard.start(ours, () => {});
        if (${committed}) guard.commit();
        process.kill(process.pid, "SIGKILL");
      });`,
    );
    const server = createServer().listen(path);
    const accepted = once(server, "connection");
    const parent = spawn(process.execPath, [script], { stdio: "inherit" });
    const [socket] = (await accepted) as [Socket];
    const qemu = new QemuEnd(socket);
    server.close();
    expect(await once(parent, "exit")).toEqual([null, "SIGKILL"]);
    return qemu;
  }

  test("a parent killed at once, before the guard program has even started, is as good as any other", async () => {
    const before = await killedParent(false);
    await before.closed;
    expect(before.received.length).toBe(0);
    const after = await killedParent(true);
    await after.waitFor(SHUT_OK);
    expect(after.isClosed).toBe(false);
  });

  test("a guard that dies is told of, once, and changes nothing", async () => {
    const { ours, qemu } = await start();
    const { stdout } = spawn("pgrep", ["-P", String(process.pid), "-f", "guard-process"]);
    const pid = Number(
      String((await once(stdout, "data"))[0])
        .trim()
        .split("\n")
        .at(-1),
    );
    process.kill(pid, "SIGKILL");
    while (notices.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(notices).toEqual([expect.stringMatching(/^The guard has ended \(SIGKILL\)/)]);
    ours.write("still there");
    await qemu.waitFor(Buffer.from("still there"));
  });
});
