// A day of `deltavee receive` in minutes: peers that are none come and go, several at a time, by a seed, and at the end
// the right source is taken in all the same. What the process holds is looked at from outside, when none of them is there.

import { createHash } from "node:crypto";
import net from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { seeded } from "../../src/base/seeded.ts";
import { encodeFrame, type Frame } from "../../src/wire/frame.ts";
import { helloFrame } from "../../src/wire/handshake.ts";
import {
  Authority,
  daysFromNow,
  type HostCertificate,
  keyPem,
  writeTlsFolder,
} from "../support/certificates.ts";
import { destinationFor, ended, listeningAddress, receiveArguments } from "../support/migration.ts";
import { type CliRun, runCli } from "../support/processes.ts";
import type { QemuBinary } from "../support/qemu-binaries.ts";
import { type QemuOptions, startQemu } from "../support/qemu-vm.ts";
import { type Measure, measureProcess } from "./measure.ts";

const LOAD = "ws=8192 rate=500 pattern=sparse fill=random";
/** At a time. */
const PEERS_MAX = 12;
/** One that is not closed by then is half-open, and goes by itself. The lobby lets nobody stay for longer. */
const STAY_MS_MAX = 15_000;
/** How often it is waited for that nobody is there. */
const MEASURES = 10;
const GONE_MS_MAX = 60_000;
/** Above what it holds when nobody is there: the peers of a moment, those that are being closed, files being read. */
const DESCRIPTORS_ABOVE_MAX = 2 * PEERS_MAX + 8;

export interface ReceiveSoak {
  measures: Measure[];
  /** Peers of each kind. */
  kinds: Record<string, number>;
  descriptorsMax: number;
  /** Lines that the process has written about them. */
  notices: number;
}

type Peer = (port: number, random: () => number) => Promise<void>;

/** @throws Error for a receiver that ended, held more than it may, or did not take the guest in */
export async function soakReceive(
  binary: QemuBinary,
  peers: number,
  seed: number,
  folder: string,
  came: (peers: number) => void,
  stayMsMax: number = STAY_MS_MAX,
): Promise<ReceiveSoak> {
  const options: QemuOptions = { binary, memoryMiB: 64, append: LOAD };
  const source = await startQemu(options);
  const destination = await startQemu({ ...options, incoming: "defer" });
  const started: CliRun[] = [];
  const cli = async (...commandArguments: string[]) => {
    const run = await runCli([...commandArguments, "--state-dir", join(folder, "receive-state"), "--json"]);
    started.push(run);
    return run;
  };
  try {
    await source.waitForReady();
    const authority = new Authority();
    const files = writeTlsFolder(
      join(folder, "tls"),
      authority,
      authority.issue(["127.0.0.1", "source.example"]),
    );
    const receive = await cli(
      ...["receive", ...receiveArguments(destination), "--tls-dir", files, "--allow", "127.0.0.1"],
    );
    const address = await listeningAddress(receive);
    const port = Number(/:(\d+)$/.exec(address)![1]);
    const soak = await comeAndGo(receive, port, { peers, seed, authority, came, stayMsMax });
    const to = destinationFor("tunnel", address);
    const migrate = await cli("migrate", "--qmp", source.toolQmp.path, "--to", to, "--tls-dir", files);
    for (const run of [migrate, receive]) {
      const { code, stderr } = await ended(run);
      if (code !== 0) throw new Error(`After ${peers} peers the right source did not get through: ${stderr}`);
    }
    const { ok } = await destination.verify();
    if (!ok) throw new Error("The guest finds its memory damaged");
    return soak;
  } finally {
    for (const run of started) await run.stop();
    await source.stop();
    await destination.stop();
  }
}

async function comeAndGo(
  receive: CliRun,
  port: number,
  {
    peers,
    seed,
    authority,
    came,
    stayMsMax,
  }: { peers: number; seed: number; authority: Authority; came: (n: number) => void; stayMsMax: number },
): Promise<ReceiveSoak> {
  const random = seeded(seed);
  const kinds = Object.entries(peerKinds(authority, stayMsMax));
  const soak: ReceiveSoak = {
    measures: [],
    kinds: Object.fromEntries(kinds.map(([name]) => [name, 0])),
    descriptorsMax: 0,
    notices: 0,
  };
  const perMeasure = Math.ceil(peers / MEASURES);
  const base = measureProcess(receive.pid).counts.descriptors!;
  for (let done = 0; done < peers; done += perMeasure) {
    let left = Math.min(perMeasure, peers - done);
    const visitor = async () => {
      while (left-- > 0) {
        const [name, peer] = kinds[Math.floor(random() * kinds.length)]!;
        soak.kinds[name]!++;
        await peer(port, random);
        const { descriptors = 0 } = measureProcess(receive.pid).counts;
        soak.descriptorsMax = Math.max(soak.descriptorsMax, descriptors);
        if (descriptors > base + DESCRIPTORS_ABOVE_MAX)
          throw new Error(`receive holds ${descriptors} descriptors, ${base} when nobody is there`);
      }
    };
    await Promise.all(Array.from({ length: PEERS_MAX }, visitor));
    soak.measures.push(await whenNobodyIsThere(receive.pid, base));
    came(Math.min(peers, done + perMeasure));
  }
  soak.notices = receive.stdout.lines.filter(({ text }) => text.includes('"type":"notice"')).length;
  return soak;
}

/** Those who have gone are noticed in a moment; a measure that never comes down is taken as it is. */
async function whenNobodyIsThere(pid: number, base: number): Promise<Measure> {
  const endMs = performance.now() + GONE_MS_MAX;
  for (;;) {
    const measure = measureProcess(pid);
    if (measure.counts.descriptors! <= base || performance.now() > endMs) return measure;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function peerKinds(authority: Authority, stayMsMax: number): Record<string, Peer> {
  const overTcp = (port: number, act: (socket: net.Socket) => void, stayMs = stayMsMax) => {
    const socket = net.connect(port, "127.0.0.1");
    return closed(socket, socket, "connect", () => act(socket), stayMs);
  };
  const overTls = (
    port: number,
    { key, certificate }: HostCertificate,
    act: (socket: tls.TLSSocket) => unknown,
    stayMs = stayMsMax,
  ) => {
    const own = { key: keyPem(key), cert: certificate, rejectUnauthorized: false };
    const options = { port, host: "127.0.0.1", minVersion: "TLSv1.3" as const, ...own };
    const socket = tls.connect(options);
    return closed(socket, socket, "secureConnect", () => void act(socket), stayMs);
  };
  const known = authority.issue(["127.0.0.1"]);
  const stranger = new Authority("another authority").issue(["127.0.0.1"]);
  const unlisted = authority.issue(["unlisted.example"]);
  const late = authority.issue(["127.0.0.1"], { notAfter: daysFromNow(-0.5) });
  const hello = (kind: "qemu" | "v86", versions?: { min: number; max: number }): Frame => {
    const body = { deltavee: "soak", session: "00".repeat(16), entropyCodecs: [1] };
    const frame = helloFrame({ ...body, hypervisor: { kind, version: "1" } });
    return versions === undefined ? frame : { ...frame, versions };
  };
  const token = createHash("md5").update("nobody's").digest("hex");
  const resume: Frame = {
    ...{ type: "resume", version: 5, stage: "streaming", connection: 2, returnBytes: 0 },
    ...{ session: token, token },
  };
  const says = (host: HostCertificate, bytes: Uint8Array): Peer => {
    return (port) => overTls(port, host, (socket) => void socket.write(bytes));
  };
  return {
    "garbage in plain text": (port, random) =>
      overTcp(port, (socket) => void socket.write(Buffer.alloc(1 + random() * 5000, random() * 256))),
    HTTP: (port) => overTcp(port, (socket) => void socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    "half-open": (port, random) => overTcp(port, () => {}, random() * stayMsMax),
    "comes and resets": (port) => overTcp(port, (socket) => void socket.resetAndDestroy()),
    "hangs up during the TLS handshake": (port, random) =>
      overTcp(port, (socket) => {
        socket.write(Buffer.from("16030100c8010000c40303", "hex"));
        setTimeout(() => socket.resetAndDestroy(), random() * 500);
      }),
    "of another authority": says(stranger, encodeFrame(hello("qemu"))),
    "of a certificate that has expired": says(late, encodeFrame(hello("qemu"))),
    "may hand nothing over": says(unlisted, encodeFrame(hello("qemu"))),
    "trusted, and says garbage": says(known, Buffer.alloc(3000, 0x5a)),
    "trusted, of a protocol version to come": says(known, encodeFrame(hello("qemu", { min: 98, max: 99 }))),
    "trusted, of another hypervisor": says(known, encodeFrame(hello("v86"))),
    "trusted, and resumes what is not there": says(known, encodeFrame(resume)),
    "trusted, and slow": (port, random) =>
      overTls(port, known, async (socket) => {
        // A byte now and then, until it is closed or goes in the middle.
        const bytes = encodeFrame(hello("v86"));
        const last = Math.floor(random() * bytes.length);
        for (let at = 0; at < last && !socket.destroyed; at++) {
          socket.write(bytes.subarray(at, at + 1));
          await new Promise((resolve) => setTimeout(resolve, random() * 40));
        }
        socket.destroy();
      }),
    "trusted, and says nothing": (port, random) => overTls(port, known, () => {}, random() * stayMsMax),
  };
}

/** Resolves when the connection is closed, which it is after `stayMs` at the latest. */
function closed(
  socket: net.Socket,
  events: NodeJS.EventEmitter,
  connected: string,
  act: () => void,
  stayMs: number,
): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => socket.destroy(), stayMs);
    // It is to be turned away, in whatever way.
    socket.on("error", () => {});
    socket.resume();
    events.once(connected, act);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
