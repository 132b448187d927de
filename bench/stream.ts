// Section "stream": how fast a migration stream is read, and read and rewritten, in one thread and without
// sockets. Small records are the hard case for the reader, whole pages for the memory.

import { StreamRewriter } from "../src/engine/rewriter.ts";
import { PageCache } from "../src/memory/page-cache.ts";
import { type StreamHandler, StreamReader } from "../src/stream/reader.ts";
import { OutputBuffer, StreamWriter } from "../src/stream/writer.ts";
import { pageSets } from "./pages/sets.ts";
import { type GuestStream, guestStream } from "./pipeline/guest-stream.ts";
import type { SectionOptions, SectionResult } from "./report.ts";
import { type Contender, takeTurns } from "./timing.ts";

/** As a socket gives them. */
const CHUNK_BYTES = 256 * 1024;
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
const NULL_LISTENER = {
  ramBlocks: ignore,
  command: ignore,
  stopped: ignore,
  deviceState: ignore,
  opaque: ignore,
};

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
  const deltas = rewritten(guest);
  const inputs = [
    {
      name: "whole pages and zero pages",
      bytes: Buffer.concat(guest.parts),
      records: guest.pages + guest.zeroPages,
    },
    {
      name: "the same after rewriting (XBZRLE)",
      bytes: deltas,
      records: guest.pages + guest.zeroPages,
    },
  ];
  const figures = inputs.flatMap(({ name, bytes, records }): StreamFigure[] => {
    const contenders: Contender[] = [
      { name: "read", bytes: bytes.length, run: () => push(new StreamReader(NULL_HANDLER), bytes, ignore) },
    ];
    if (bytes !== deltas) {
      contenders.push({ name: "read and rewrite", bytes: bytes.length, run: () => rewrite(bytes, ignore) });
    }
    return takeTurns(contenders, turns, undefined).map((timing) => ({
      section: "stream",
      stream: name,
      work: timing.name,
      bytesPerSecond: timing.bytesPerSecond,
      nsPerRecord: (1e9 * bytes.length) / timing.bytesPerSecond / records,
    }));
  });
  return {
    name: "stream",
    title: "Migration stream",
    notes: [
      `A first pass over ${2 * guest.zeroPages} pages, half of them zero, and ${DIRTY_ITERATIONS} dirty iterations, of the pages of ` +
        `${sets.map(({ name }) => name).join(", ")}; in chunks of ${CHUNK_BYTES / 1024} KiB. CPU time of one thread; median of ${turns} turns.`,
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

function push(reader: StreamReader, bytes: Buffer, pushed: () => void): void {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    reader.push(bytes.subarray(at, at + CHUNK_BYTES));
    pushed();
  }
}

/** Nothing is kept of the output unless `take` does. */
function rewrite(bytes: Buffer, take: (output: OutputBuffer) => void): void {
  const output = new OutputBuffer();
  const rewriter = new StreamRewriter(
    new StreamWriter(output),
    NULL_LISTENER,
    (pageBytes) => new PageCache({ pageBytes, limitBytes: CACHE_BYTES }),
  );
  push(new StreamReader(rewriter), bytes, () => {
    take(output);
    output.drop(output.length);
  });
}

function rewritten(guest: GuestStream): Buffer {
  const pieces: Buffer[] = [];
  rewrite(Buffer.concat(guest.parts), (output) =>
    pieces.push(Buffer.from(output.bytes.subarray(0, output.length))),
  );
  return Buffer.concat(pieces);
}
