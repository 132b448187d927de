import { mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import type net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LinkError, UsageError } from "../base/errors.ts";
import { type Address, connect, formatAddress, type Listener, listen, parseAddress } from "./address.ts";

const ANY_PORT: Address = { kind: "tcp", host: "127.0.0.1", port: 0 };

describe("parseAddress", () => {
  it.each<[string, Address]>([
    ["tcp:10.0.0.1:4444", { kind: "tcp", host: "10.0.0.1", port: 4444 }],
    ["10.0.0.1:4444", { kind: "tcp", host: "10.0.0.1", port: 4444 }],
    ["tcp:0:4444", { kind: "tcp", host: "0", port: 4444 }],
    [" host-b.example:0 ", { kind: "tcp", host: "host-b.example", port: 0 }],
    ["[::1]:65535", { kind: "tcp", host: "::1", port: 65535 }],
    ["tcp:[fe80::1%eth0]:1", { kind: "tcp", host: "fe80::1%eth0", port: 1 }],
    ["unix:/run/vm 1.sock", { kind: "unix", path: "/run/vm 1.sock" }],
    ["unix:relative.sock", { kind: "unix", path: "relative.sock" }],
    ["deltavee://host:7000", { kind: "deltavee", host: "host", port: 7000 }],
    ["deltavee://[::1]:7000", { kind: "deltavee", host: "::1", port: 7000 }],
  ])("reads %j", (text, address) => {
    expect(parseAddress(text)).toEqual(address);
  });

  it.each<[string, RegExp]>([
    ["", /expected e\.g\./],
    ["host", /port is missing: host:4444/],
    [":4444", /host is missing: 127\.0\.0\.1:4444/],
    ["tcp::4444", /host is missing/],
    ["::1:4444", /brackets: \[::1\]:4444/],
    ["::1", /brackets/],
    ["host:65536", /ports end at 65535/],
    ["host:-1", /expected e\.g\./],
    ["host:", /expected e\.g\./],
    ["[127.0.0.1]:80", /expected e\.g\./],
    ["[]:80", /expected e\.g\./],
    ["http://host:80", /expected e\.g\./],
    ["two words:80", /expected e\.g\./],
    ["unix:", /path is missing/],
    ["unix:/a\0b", /path is missing/],
    [`unix:/${"x".repeat(107)}`, /at most 107 bytes/],
  ])("refuses %j and says what is wrong", (text, message) => {
    expect(() => parseAddress(text)).toThrow(UsageError);
    expect(() => parseAddress(text)).toThrow(message);
  });

  it("reads back whatever formatAddress writes", () => {
    const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constantFrom("tcp", "unix", "deltavee", "0"));
    const address = fc.oneof(
      fc.record({
        kind: fc.constantFrom("tcp" as const, "deltavee" as const),
        host,
        port: fc.integer({ min: 0, max: 65_535 }),
      }),
      fc.record({
        kind: fc.constant("unix" as const),
        path: fc
          .string({ minLength: 1, maxLength: 100, unit: "grapheme-ascii" })
          .map((name) => `/${name.trim()}`),
      }),
    );
    fc.assert(
      fc.property(address, (a) => {
        expect(parseAddress(formatAddress(a))).toEqual(a);
      }),
    );
  });

  it("answers any text with an address or a usage error", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(..."tcpunixdeltavee://[]0123456789 .-_%\0\u00e9") }),
        (text) => {
          try {
            expect(parseAddress(formatAddress(parseAddress(text)))).toEqual(parseAddress(text));
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(UsageError);
          }
        },
      ),
    );
  });
});

describe("connect and listen", () => {
  let folder: string;
  const listeners: Listener[] = [];
  const servers: net.Server[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "deltavee-"));
  });

  afterEach(() => {
    for (const listener of listeners.splice(0)) listener.close();
    for (const server of servers.splice(0)) server.close();
    rmSync(folder, { recursive: true });
  });

  async function echo(address: Address, connectionsMax?: number): Promise<[Listener, LinkError[]]> {
    const errors: LinkError[] = [];
    const handlers = {
      onConnection: (socket: net.Socket) => void socket.on("error", () => undefined).pipe(socket),
      onError: (error: LinkError) => void errors.push(error),
    };
    const listener = await listen(address, handlers, connectionsMax === undefined ? {} : { connectionsMax });
    listeners.push(listener);
    return [listener, errors];
  }

  async function ask(address: Address, text: string): Promise<string> {
    const socket = await connect(address, 5000);
    socket.end(text);
    let answer = "";
    for await (const bytes of socket) answer += String(bytes);
    return answer;
  }

  it("meet over TCP, on a port that the kernel chose", async () => {
    const [listener] = await echo(ANY_PORT);
    expect(listener.address).toMatchObject({ kind: "tcp", host: "127.0.0.1" });
    expect(await ask(listener.address, "hello")).toBe("hello");
  });

  it("meet over a unix socket that only its owner may open, from the first moment on", async () => {
    const path = join(folder, "s");
    const umask = process.umask();
    const listening = echo({ kind: "unix", path });
    // The promise has not settled yet: the file has its mode before anybody can have connected.
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(process.umask()).toBe(umask);
    await listening;
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await ask({ kind: "unix", path }, "hello")).toBe("hello");
  });

  it("say what was attempted when nobody listens", async () => {
    const [listener] = await echo(ANY_PORT);
    listener.close();
    const attempt = connect(listener.address, 5000);
    await expect(attempt).rejects.toThrow(LinkError);
    await expect(attempt).rejects.toMatchObject({
      code: "LINK_FAILED",
      message: `Could not connect to ${formatAddress(listener.address)}`,
      cause: { code: "ECONNREFUSED" },
    });
  });

  it("say what was attempted when a unix socket is not there", async () => {
    await expect(connect({ kind: "unix", path: join(folder, "none") }, 5000)).rejects.toMatchObject({
      code: "LINK_FAILED",
      cause: { code: "ENOENT" },
    });
  });

  it("give up when asked to, before and during an attempt", async () => {
    const [listener] = await echo(ANY_PORT);
    const reason = new Error("not wanted any more");
    const before = connect(listener.address, 5000, { signal: AbortSignal.abort(reason) });
    await expect(before).rejects.toMatchObject({ code: "LINK_FAILED", cause: reason });
    const abandoned = new AbortController();
    const during = connect(listener.address, 5000, { signal: abandoned.signal });
    abandoned.abort(reason);
    await expect(during).rejects.toMatchObject({ code: "LINK_FAILED", cause: reason });
  });

  it("leave a connection alone when its attempt is given up too late", async () => {
    const [listener] = await echo(ANY_PORT);
    const abandoned = new AbortController();
    const socket = await connect(listener.address, 5000, { signal: abandoned.signal });
    abandoned.abort();
    expect(socket.destroyed).toBe(false);
    socket.destroy();
  });

  it("give up after the time allowed", async () => {
    // Nothing settles an attempt within the time of one turn of the event loop that is kept busy for longer.
    const [listener] = await echo(ANY_PORT);
    const attempt = connect(listener.address, 1);
    const untilMs = performance.now() + 20;
    while (performance.now() < untilMs);
    await expect(attempt).rejects.toThrow(/within 1 ms$/);
  });

  it("refuse a port that is taken", async () => {
    const [listener] = await echo(ANY_PORT);
    await expect(echo(listener.address)).rejects.toMatchObject({
      code: "LINK_FAILED",
      message: `Could not listen on ${formatAddress(listener.address)}`,
      cause: { code: "EADDRINUSE" },
    });
  });

  it("explain a unix path that another process listens on", async () => {
    const address: Address = { kind: "unix", path: join(folder, "s") };
    await echo(address);
    await expect(echo(address)).rejects.toThrow(/another process listens there/);
  });

  it("explain a socket left behind, and do not remove it", async () => {
    const path = join(folder, "s");
    const moved = join(folder, "left-behind");
    const [listener] = await echo({ kind: "unix", path });
    renameSync(path, moved);
    listener.close();
    await expect(echo({ kind: "unix", path: moved })).rejects.toThrow(/left behind .* rm .*left-behind$/);
    expect(statSync(moved).isSocket()).toBe(true);
  });

  it("explain a unix path that is an ordinary file, and do not touch it", async () => {
    const path = join(folder, "notes.txt");
    writeFileSync(path, "notes");
    await expect(echo({ kind: "unix", path })).rejects.toThrow(/a file of that name exists already/);
    expect(statSync(path).size).toBe(5);
  });

  it("report connections above the limit and go on listening", async () => {
    const [listener, errors] = await echo(ANY_PORT, 1);
    const first = await connect(listener.address, 5000);
    const second = await connect(listener.address, 5000);
    await new Promise((resolve) =>
      second
        .on("error", () => undefined)
        .on("close", resolve)
        .resume(),
    );
    expect(errors.map((error) => error.message)).toEqual([expect.stringMatching(/more than 1 connections/)]);
    first.destroy();
    await new Promise((resolve) => first.once("close", resolve));
    await expect.poll(() => ask(listener.address, "hello")).toBe("hello");
  });
});
