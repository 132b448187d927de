import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { CLIENT_ADDRESS, openHosts, type TestHosts } from "../../src/lab/hosts/hosts.ts";
import { namespaces, run } from "../../src/lab/hosts/namespaces.ts";
import { CONGESTIONS, type LabLink } from "../../src/lab/model.ts";
import { type Subprocess, startProcess } from "../support/processes.ts";
import { whyNoTestHosts } from "../support/test-hosts.ts";

const BYTES_PER_SECOND = 50e6 / 8;
const ROUND_TRIP_MS = 60;
const SENT_BYTES = 2_000_000;
/** Of UDP, to the destination: enough for a loss of a tenth to show, and to be told from one of a fifth. */
const DATAGRAMS = 2000;

/** TCP: sends as many bytes as it is told to, waits for the answer, prints when it connected and when that was. */
const SENDER = `
const [host, port, bytes] = process.argv.slice(1);
const start = performance.now();
const socket = require("node:net").connect(Number(port), host, () => {
  const connectedMs = performance.now() - start;
  socket.end(Buffer.alloc(Number(bytes)));
  socket.on("data", (answer) => console.log(JSON.stringify({ connectedMs, endedMs: performance.now() - start, got: Number(answer) })));
});`;
const HOLDER = `require("node:net").connect(Number(process.argv[2]), process.argv[1]);`;
const RECEIVER = `
const server = require("node:net").createServer({ allowHalfOpen: true }, (socket) => {
  let bytes = 0;
  socket.on("data", (chunk) => { bytes += chunk.length; });
  socket.on("end", () => socket.end(String(bytes)));
}).listen(7000, "0.0.0.0", () => console.log("listening"));`;
const DATAGRAM_SENDER = `
const socket = require("node:dgram").createSocket("udp4");
let left = Number(process.argv[2]);
const some = () => {
  for (let i = 0; i < 5 && left > 0; i++, left--) socket.send("x", 7000, process.argv[1]);
  if (left > 0) setTimeout(some, 5); else setTimeout(() => process.exit(), 500);
};
some();`;
const DATAGRAM_RECEIVER = `
let count = 0;
require("node:dgram").createSocket("udp4").on("message", () => count++).bind(7000, () => console.log("listening"));
process.stdin.on("data", () => { console.log(count); process.exit(); });`;

let hosts: TestHosts | undefined;
const started: Subprocess[] = [];

async function open(link: LabLink): Promise<TestHosts> {
  hosts = await openHosts(link);
  return hosts;
}

async function node(netns: string, program: string, ...programArguments: string[]) {
  const output: string[] = [];
  const child = await startProcess(process.execPath, ["-e", program, ...programArguments], {
    netns,
    onStdout: (chunk) => output.push(chunk.toString()),
  });
  started.push(child);
  return { ...child, text: () => output.join("") };
}

async function listening(netns: string, program: string) {
  const child = await node(netns, program);
  await expect.poll(child.text, { timeout: 120_000 }).toContain("listening");
  return child;
}

async function send(netns: string, host: string, bytes = SENT_BYTES) {
  const sender = await node(netns, SENDER, host, "7000", `${bytes}`);
  const { code } = await sender.exited;
  expect(code, sender.stderrTail()).toBe(0);
  return JSON.parse(sender.text()) as { connectedMs: number; endedMs: number; got: number };
}

afterEach(async () => {
  await hosts?.remove();
  hosts = undefined;
  await Promise.all(started.splice(0).map((each) => each.stop()));
});

beforeAll(() => {
  if (process.geteuid?.() !== 0) throw new Error("Test hosts need root");
});

const noHosts = (await whyNoTestHosts()) !== undefined;

describe.skipIf(noHosts)("the link between the test hosts", () => {
  it("is as long and as fast as it was made, and counts what crosses it", async () => {
    const link = { bytesPerSecond: BYTES_PER_SECOND, roundTripMs: ROUND_TRIP_MS, lossShare: 0 };
    const { sourceNetns, destinationNetns, destinationAddress, sentBytes } = await open(link);
    await listening(destinationNetns, RECEIVER);
    const before = sentBytes();
    const { connectedMs, endedMs, got } = await send(sourceNetns, destinationAddress);
    const after = sentBytes();
    expect(got).toBe(SENT_BYTES);
    // The handshake takes a round trip.
    expect(connectedMs).toBeGreaterThanOrEqual(ROUND_TRIP_MS);
    expect(endedMs).toBeGreaterThan((SENT_BYTES / BYTES_PER_SECOND) * 1000);
    const forward = after.bySource - before.bySource;
    expect(forward).toBeGreaterThan(SENT_BYTES);
    expect(forward).toBeLessThan(SENT_BYTES * 1.2);
    expect(after.byDestination - before.byDestination).toBeGreaterThan(0);
    expect(after.byDestination - before.byDestination).toBeLessThan(SENT_BYTES / 5);
  });

  it("loses the share of packets it was told to, each way, and TCP copes", async () => {
    const link = { bytesPerSecond: BYTES_PER_SECOND, roundTripMs: 2, lossShare: 0.1 };
    const { sourceNetns, destinationNetns, destinationAddress } = await open(link);
    const receiver = await listening(destinationNetns, DATAGRAM_RECEIVER);
    const sender = await node(sourceNetns, DATAGRAM_SENDER, destinationAddress, `${DATAGRAMS}`);
    await sender.exited;
    receiver.stdin.write("\n");
    await receiver.exited;
    const share = Number(receiver.text().split("\n")[1]) / DATAGRAMS;
    expect(share).toBeGreaterThan(0.85);
    expect(share).toBeLessThan(0.95);
    await listening(destinationNetns, RECEIVER);
    expect((await send(sourceNetns, destinationAddress, 50_000)).got).toBe(50_000);
  });

  const known = readFileSync("/proc/sys/net/ipv4/tcp_available_congestion_control", "utf8");
  for (const congestion of CONGESTIONS) {
    const why = known.includes(congestion) ? "" : ` (skipped: this kernel has no ${congestion})`;
    it.skipIf(why !== "")(`has connections that ${congestion} controls, where it is to${why}`, async () => {
      const link = { bytesPerSecond: BYTES_PER_SECOND, roundTripMs: 2, lossShare: 0, congestion };
      const { sourceNetns, destinationNetns, destinationAddress } = await open(link);
      await listening(destinationNetns, RECEIVER);
      await node(sourceNetns, HOLDER, destinationAddress, "7000");
      const controls = () => {
        const told = run("ip", "netns", "exec", sourceNetns, "ss", "-tinH");
        return CONGESTIONS.filter((name) => new RegExp(`\\b${name}\\b`).test(told));
      };
      await expect.poll(controls, { timeout: 120_000 }).toEqual([congestion]);
    });
  }

  it("is none between client and hosts: what clients send does not cross it", async () => {
    const link = { bytesPerSecond: 1000, roundTripMs: 2000, lossShare: 0 };
    const { clientNetns, sourceNetns, sentBytes } = await open(link);
    await listening(clientNetns, RECEIVER);
    run("ip", "-n", sourceNetns, "address", "add", "198.51.100.9/24", "dev", "clients");
    const before = sentBytes();
    expect((await send(sourceNetns, CLIENT_ADDRESS)).got).toBe(SENT_BYTES);
    expect(sentBytes()).toEqual(before);
  });
});

describe.skipIf(noHosts)("test hosts", () => {
  it("end with all that runs on them", async () => {
    const { sourceNetns, remove } = await open({ bytesPerSecond: 1e6, roundTripMs: 10, lossShare: 0 });
    const child = await node(sourceNetns, "setInterval(() => {}, 1000)");
    await sleep(200);
    await remove();
    expect((await child.exited).signal).toBe("SIGKILL");
    expect(namespaces().filter((name) => name.startsWith(`deltavee-lab-${process.pid}-`))).toEqual([]);
    await remove();
  });

  it("that a dead owner has left are cleared away with what still runs there, and others are not", async () => {
    const owner = await startProcess("true", []);
    await owner.exited;
    const [left, living] = [`deltavee-lab-${owner.pid}-source`, "deltavee-lab-1-source"];
    run("ip", "netns", "add", left);
    run("ip", "netns", "add", living);
    try {
      const child = await node(left, "setInterval(() => {}, 1000)");
      await sleep(200);
      await open({ bytesPerSecond: 1e6, roundTripMs: 0, lossShare: 0 });
      expect((await child.exited).signal).toBe("SIGKILL");
      expect(namespaces()).not.toContain(left);
      expect(namespaces()).toContain(living);
    } finally {
      run("ip", "netns", "del", living);
    }
  });
});
