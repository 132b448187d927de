// Section "stream": how fast a migration stream is read, and read and rewritten, in one thread and without
// sockets. Small records are the hard case for the reader, whole pages for the memory.

import { StreamRewriter } from "../src/engine/pages/rewriter.ts";
import { StreamSink } from "../src/engine/pages/stream-sink.ts";
import { type Kernel, loadKernel } from "../src/kernel/kernel.ts";
import { KernelMemory } from "../src/kernel/memory.ts";
import { PageCache } from "../src/memory/page-cache.ts";
import { type StreamHandler, StreamReader } from "../src/stream/reader.ts";
import { pageSets } from "./pages/sets.ts";
import { type GuestStream, guestStream } from "./pipeline/guest-stream.ts";
import type { SectionOptions, SectionResult } from "./report.ts";
import { type Contender, takeTurns } from "./timing.ts";

/** What is read before the output is taken: as much as the engine takes in one turn. */
const TURN_BYTES = 128 * 1024;
const DIRTY_ITERATIONS = 2;
const CACHE_BYTES = 1024 ** 3;

const ignore = (): void => {};
const NULL_HANDLER: StreamHandler = {
  verbatim: ignore,
  ramBlocks: ignore,
  ramSection: ignore,
  ramSectionEnd: ignore,
  zeroPage: ignore,
  page: ignore,
  xbzrlePage: ignore,
  command: ignore,
  stopped: ignore,
  deviceState: ignore,
  opaque: ignore,
};
const NULL_LISTENER = { command: ignore, stopped: ignore, deviceState: ignore, opaque: ignore };

interface StreamFigure {
  section: "stream";
  stream: string;
  work: string;
  bytesPerSecond: number;
  nsPerRecord: number;
}

export async function streamSection({ turns, rebuildPages }: SectionOptions): Promise<SectionResult> {
  const sets = (await pageSets(rebuildPages)).filter(({ kind }) => kind !== "synthetic");
  const guest = guestStream(sets, DIRTY_ITERATIONS);
  const records = guest.pages + guest.zeroPages;
  const whole = Buffer.concat(guest.parts);
  const figures = [
    ...measured("whole pages and zero pages", whole, records, true, turns),
    ...measured("the same as XBZRLE and zero pages", rewritten(guest), records, false, turns),
  ];
  return {
    name: "stream",
    title: "Migration stream",
    notes: [
      `A first pass over ${2 * guest.zeroPages} pages, half of them zero, and ${DIRTY_ITERATIONS} dirty iterations, of the pages of ` +
        `${sets.map(({ name }) => name).join(", ")}; in turns of ${TURN_BYTES / 1024} KiB. CPU time of one thread; median of ${turns} turns.`,
      "Rewriting includes the page cache, from empty on, and XBZRLE.",
    ],
    tables: [
      {
        caption: "Reader and rewriter",
        table: [
          ["stream", "work", "GB/s of it", "ns per record"],
          ...figures.map((figure) => [
            figure.stream,
            figure.work,
            (figure.bytesPerSecond / 1e9).toFixed(2),
            figure.nsPerRecord.toFixed(0),
          ]),
        ],
      },
    ],
    goals: [],
    lines: figures,
  };
}

/** A migration begins with an empty cache: each run has a home memory of its own, with the stream in it. */
class Scene {
  readonly bytes: Uint8Array;
  readonly #memory = new KernelMemory();
  readonly #kernel: Kernel = loadKernel(this.#memory);

  constructor(stream: Uint8Array) {
    this.bytes = this.#memory.bytes(this.#memory.allocate(stream.length), stream.length);
    this.bytes.set(stream);
  }

  read(handler: StreamHandler, turnEnded: () => void): void {
    const reader = new StreamReader(handler);
    const { length } = this.bytes;
    for (let at = 0; at < length; ) {
      at = reader.consume(this.bytes, at, length, Math.min(at + TURN_BYTES, length));
      turnEnded();
    }
  }

  /** Nothing is kept of the output unless `take` does. */
  rewrite(take: (output: Uint8Array) => void): void {
    const [memory, kernel] = [this.#memory, this.#kernel];
    const sink = new StreamSink(memory, kernel);
    const cacheFactory = (pageBytes: number) => new PageCache({ pageBytes, memory, limitBytes: CACHE_BYTES });
    const rewriter = new StreamRewriter({ sink, memory, kernel, listener: NULL_LISTENER, cacheFactory });
    this.read(rewriter, () => {
      const { bytes, release } = sink.take();
      take(bytes);
      release();
    });
  }
}

function measured(
  stream: string,
  bytes: Uint8Array,
  records: number,
  rewrites: boolean,
  turns: number,
): StreamFigure[] {
  let scene = new Scene(bytes);
  const contenders: Contender[] = [
    { name: "read", bytes: bytes.length, run: () => scene.read(NULL_HANDLER, ignore) },
  ];
  if (rewrites) {
    contenders.push({
      name: "read and rewrite",
      bytes: bytes.length,
      prepare: () => {
        scene = new Scene(bytes);
      },
      run: () => scene.rewrite(ignore),
    });
  }
  return takeTurns(contenders, turns).map(({ name, bytesPerSecond }) => ({
    section: "stream",
    stream,
    work: name,
    bytesPerSecond,
    nsPerRecord: (1e9 * bytes.length) / bytesPerSecond / records,
  }));
}

function rewritten(guest: GuestStream): Buffer {
  const pieces: Buffer[] = [];
  new Scene(Buffer.concat(guest.parts)).rewrite((output) => pieces.push(Buffer.from(output)));
  return Buffer.concat(pieces);
}
