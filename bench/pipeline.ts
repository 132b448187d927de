// Section "pipeline": one migration through the real engines, each in a process of its own, unix socket in and
// unix socket out. This process plays the hypervisor and the other end of the link, as fast as it is let.

import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ENTROPY_NONE, ENTROPY_ZSTD } from "../src/codec/entropy/entropy-coder.ts";
import { connect, listen } from "../src/link/address.ts";
import { SocketChannel } from "../src/link/socket-channel.ts";
import { cpuSeconds, type Subprocess, startProcess, tempFolder } from "../test/support/processes.ts";
import { PAGE_BYTES } from "./pages/page-set.ts";
import { pageSets } from "./pages/sets.ts";
import type { EngineTask } from "./pipeline/engine-process.ts";
import { type GuestStream, guestStream } from "./pipeline/guest-stream.ts";
import { acceptLink, connectLink, type TcpLink } from "./pipeline/tcp-link.ts";
import { AcknowledgingDestination, splitHello } from "./pipeline/tunnel-ends.ts";
import type { Goal, SectionOptions, SectionResult } from "./report.ts";
import { median } from "./timing.ts";

/** Enough that neither the start of the code nor the first touch of memory weighs much. */
const DIRTY_ITERATIONS = 32;
const ZSTD_FAST_LEVEL = -1;
/** Headers of frames, and what an engine may send beyond its input. */
export const KEPT_EXTRA_BYTES = 64 * 1024 * 1024;
const CACHE_BYTES = 1024 ** 3;
const WRITE_BYTES = 1024 * 1024;
const READ_BYTES = 1024 * 1024;
/** When nothing has come out for so long, and nothing is left to put in, all of it has come out. */
const QUIET_MS = 500;
const LOOK_EVERY_MS = 20;
const START_TIMEOUT_MS = 20_000;
const nothing = (): void => {};

export interface Way extends Pick<EngineTask, "mode" | "standard" | "entropy" | "tcp"> {
  name: string;
  goalBytesPerSecond?: number;
}

const CARRIED: Way = { name: "no engine, bytes carried", mode: "none", standard: true };
const WAYS: readonly Way[] = [
  CARRIED,
  { name: "direct (XBZRLE)", mode: "direct", standard: false },
  {
    name: "tunnel, entropy off",
    mode: "tunnel",
    standard: false,
    entropy: { codecId: ENTROPY_NONE, level: 0 },
    goalBytesPerSecond: 1.0e9,
  },
  {
    name: `tunnel, zstd ${ZSTD_FAST_LEVEL}`,
    mode: "tunnel",
    standard: false,
    entropy: { codecId: ENTROPY_ZSTD, level: ZSTD_FAST_LEVEL },
    goalBytesPerSecond: 0.6e9,
  },
  { name: "tunnel, as the engine chooses", mode: "tunnel", standard: false },
  {
    name: "tunnel, pages as they come",
    mode: "tunnel",
    standard: true,
    entropy: { codecId: ENTROPY_NONE, level: 0 },
    goalBytesPerSecond: 1.5e9,
  },
];

interface PipelineFigure {
  section: "pipeline";
  way: string;
  side: EngineTask["side"];
  /** Of pages with content; zero pages are not counted. */
  guestBytesPerSecond: number;
  /** Of the engine's process. */
  guestBytesPerCpuSecond: number;
  /** Against carrying the same bytes without an engine, in the same turns. */
  ratioToCarrying: number;
  linkBytes: number;
}

/** What came out of one run. */
export interface Run {
  seconds: number;
  engineCpuSeconds: number;
  bytesOut: number;
}

export async function pipelineSection({ turns, rebuildPages }: SectionOptions): Promise<SectionResult> {
  const sets = (await pageSets(rebuildPages)).filter(({ kind }) => kind !== "synthetic");
  const stream = guestStream(sets, DIRTY_ITERATIONS);
  const kept = new Kept(stream.lengthBytes + KEPT_EXTRA_BYTES);
  const runs = new Map<string, Run[]>();
  const note = (way: Way, side: EngineTask["side"], run: Run) => {
    const key = `${way.name} ${side}`;
    runs.set(key, [...(runs.get(key) ?? []), run]);
  };
  for (let turn = 0; turn < turns; turn++) {
    for (const way of WAYS) {
      console.error(`pipeline: ${way.name}, turn ${turn + 1} of ${turns}`);
      note(way, "source", await sourceRun(stream, way));
      if (way.mode !== "tunnel") continue;
      // A run of its own: keeping what is sent takes this process longer than playing both ends.
      kept.lengthBytes = 0;
      await sourceRun(stream, way, kept);
      note(way, "destination", await destinationRun(kept.bytes, way));
    }
  }
  const guestBytes = stream.pages * PAGE_BYTES;
  const carried = runs.get(`${CARRIED.name} source`)!;
  const figures = WAYS.flatMap((way) =>
    (["source", "destination"] as const).flatMap((side): PipelineFigure[] => {
      const all = runs.get(`${way.name} ${side}`);
      if (all === undefined) return [];
      const source = runs.get(`${way.name} source`)!;
      return [
        {
          section: "pipeline",
          way: way.name,
          side,
          guestBytesPerSecond: guestBytes / median(all.map(({ seconds }) => seconds)),
          guestBytesPerCpuSecond: guestBytes / median(all.map(({ engineCpuSeconds }) => engineCpuSeconds)),
          ratioToCarrying: median(all.map(({ seconds }, turn) => carried[turn]!.seconds / seconds)),
          linkBytes: median(source.map(({ bytesOut }) => bytesOut)),
        },
      ];
    }),
  );
  return {
    name: "pipeline",
    title: "Pipeline: one migration through the engines",
    notes: [
      `A stream of ${(stream.lengthBytes / 1e9).toFixed(2)} GB made of the pages of ${sets.map(({ name }) => name).join(", ")}: ` +
        `a first pass with ${stream.zeroPages} zero pages among ${2 * stream.zeroPages}, then ${DIRTY_ITERATIONS} iterations in which all others change. ` +
        `GB/s are of page records with content, zero pages not counted; median of ${turns} turns.`,
      "The engine runs in a process of its own, start of its code included; this process plays the hypervisor and the other end of the link.",
    ],
    tables: [{ caption: "Guest pages through one engine", table: tableOf(figures, guestBytes) }],
    goals: figures.flatMap(({ way, side, guestBytesPerSecond }): Goal[] => {
      const goal = WAYS.find(({ name }) => name === way)!.goalBytesPerSecond;
      if (goal === undefined) return [];
      return [
        { what: `${way}, ${side}`, value: guestBytesPerSecond / 1e9, atLeast: goal / 1e9, unit: "GB/s" },
      ];
    }),
    lines: figures,
  };
}

function tableOf(figures: readonly PipelineFigure[], guestBytes: number): string[][] {
  return [
    ["way", "side", "GB/s", "against no engine", "GB per CPU s", "link / guest bytes"],
    ...figures.map((figure) => [
      figure.way,
      figure.side,
      (figure.guestBytesPerSecond / 1e9).toFixed(2),
      figure.ratioToCarrying.toFixed(2),
      (figure.guestBytesPerCpuSecond / 1e9).toFixed(2),
      (figure.linkBytes / guestBytes).toFixed(3),
    ]),
  ];
}

/** What a source engine has sent, for the destination: memory that was touched before anything is measured. */
export class Kept {
  lengthBytes = 0;
  readonly #buffer: Buffer;

  constructor(limitBytes: number) {
    this.#buffer = Buffer.alloc(limitBytes, 1);
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.lengthBytes);
  }

  keep(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.lengthBytes);
    this.lengthBytes += bytes.length;
  }
}

/** The stream goes into a source engine; what it sends is thrown away, or kept for the destination. */
export async function sourceRun(stream: GuestStream, way: Way, kept?: Kept): Promise<Run> {
  return withEngine("source", way, async (hypervisor, link) => {
    const destination = new AcknowledgingDestination((bytes) => link.send(bytes));
    link.onData((bytes) => {
      kept?.keep(bytes);
      if (way.mode === "tunnel") destination.push(bytes);
    });
    const socket = await hypervisor;
    const startMs = performance.now();
    for (const part of stream.parts) await socket.play(part);
    return { startMs, out: link };
  });
}

/** What a source engine has sent goes into a destination engine; the stream that comes out is thrown away. */
export async function destinationRun(sent: Buffer, way: Way): Promise<Run> {
  const { hello, rest } = splitHello(sent);
  return withEngine("destination", way, async (hypervisor, link) => {
    const welcomed = new Promise<void>((resolve) => link.onData(() => resolve()));
    link.send(hello);
    await welcomed;
    const socket = await hypervisor;
    const startMs = performance.now();
    await link.play(rest);
    return { startMs, out: socket };
  });
}

function acceptOne(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const onConnection = (socket: Socket) => {
      resolve(socket);
      void listener.then(({ close }) => close());
    };
    const options = { connectionsMax: 1, pauseOnConnect: true };
    const listener = listen({ kind: "unix", path }, { onConnection, onError: reject }, options);
    listener.catch(reject);
  });
}

async function connectWhenReady(path: string): Promise<Socket> {
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      return await connect({ kind: "unix", path }, START_TIMEOUT_MS);
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw thrown;
    }
    await sleep(LOOK_EVERY_MS);
  }
}

async function openEnd(path: string, isInput: boolean, tcp: TcpLink | undefined): Promise<SocketChannel> {
  if (tcp !== undefined) return isInput ? connectLink(tcp) : acceptLink(tcp);
  return new SocketChannel(await (isInput ? connectWhenReady(path) : acceptOne(path)));
}

/** One of the engine's two sockets, seen from here. */
class End {
  bytesIn = 0;
  lastByteMs = 0;
  readonly #channel: Promise<SocketChannel>;
  readonly #buffer = new Uint8Array(READ_BYTES);
  #listener: (bytes: Uint8Array) => void = nothing;
  #drained: () => void = nothing;
  #connected: SocketChannel | undefined;

  /** The engine listens where it reads its input. */
  constructor(path: string, isInput: boolean, tcp?: TcpLink) {
    this.#channel = openEnd(path, isInput, tcp).then((channel) => {
      this.#connected = channel;
      channel.listen({
        // Always the same place: what came is thrown away, or kept as a copy.
        space: () => this.#buffer,
        data: (bytes) => {
          this.bytesIn += bytes.length;
          this.lastByteMs = performance.now();
          this.#listener(bytes);
        },
        drained: () => this.#drained(),
        ended: nothing,
        failed: nothing,
      });
      return channel;
    });
    this.#channel.catch(nothing);
  }

  /** Resolves when the engine has connected. */
  async connected(): Promise<this> {
    await this.#channel;
    return this;
  }

  onData(listener: (bytes: Uint8Array) => void): void {
    this.#listener = listener;
  }

  send(bytes: Uint8Array): void {
    this.#connected!.write(bytes);
  }

  /** Resolves when the operating system has nearly all of it. */
  async play(bytes: Buffer): Promise<void> {
    const channel = await this.#channel;
    for (let at = 0; at < bytes.length; at += WRITE_BYTES) {
      if (channel.write(bytes.subarray(at, at + WRITE_BYTES))) continue;
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
  }

  destroy(): void {
    this.#connected?.destroy();
  }
}

type Work = (hypervisor: Promise<End>, link: End) => Promise<{ startMs: number; out: End }>;

async function withEngine(side: EngineTask["side"], way: Way, work: Work): Promise<Run> {
  const folder = tempFolder();
  const [hypervisorPath, linkPath] = [join(folder.path, "hypervisor"), join(folder.path, "link")];
  const hypervisor = new End(hypervisorPath, side === "source");
  const link = new End(linkPath, side === "destination", way.tcp);
  const task: EngineTask = {
    side,
    hypervisorPath,
    linkPath,
    mode: way.mode,
    standard: way.standard,
    ...(way.entropy === undefined ? {} : { entropy: way.entropy }),
    ...(way.tcp === undefined ? {} : { tcp: way.tcp }),
    cacheBytes: CACHE_BYTES,
  };
  const program = fileURLToPath(new URL("./pipeline/engine-process.js", import.meta.url));
  const engine = await startProcess(process.execPath, [program, JSON.stringify(task)], {
    onStdout: (decisions) => process.stderr.write(decisions),
  });
  const ended = engine.exited.then(() => {
    throw new Error(`The ${side} engine ended: ${engine.stderrTail()}`);
  });
  ended.catch(() => {});
  try {
    return await Promise.race([ended, measured(engine, hypervisor, link, work)]);
  } finally {
    engine.kill("SIGKILL");
    await engine.exited;
    hypervisor.destroy();
    link.destroy();
    folder.remove();
  }
}

async function measured(engine: Subprocess, hypervisor: End, link: End, work: Work): Promise<Run> {
  const timeout = sleep(START_TIMEOUT_MS, undefined, { ref: false }).then(() => {
    throw new Error("The engine does not connect");
  });
  await Promise.race([timeout, link.connected()]);
  const cpuBefore = cpuSeconds(engine.pid);
  const { startMs, out } = await work(hypervisor.connected(), link);
  let cpu = cpuSeconds(engine.pid);
  while (performance.now() - out.lastByteMs < QUIET_MS) {
    await sleep(LOOK_EVERY_MS);
    cpu = cpuSeconds(engine.pid);
  }
  return {
    seconds: (out.lastByteMs - startMs) / 1000,
    engineCpuSeconds: cpu - cpuBefore,
    bytesOut: out.bytesIn,
  };
}
