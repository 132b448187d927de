// Section "tls": what encryption costs. The same migration through the engines over TCP on loopback, in plain text and
// with TLS, turn and turn about; and bytes without an engine, which is the most that TLS can cost.

import { ENTROPY_NONE, ENTROPY_ZSTD } from "../src/codec/entropy/entropy-coder.ts";
import { Authority, writeTlsFolder } from "../test/support/certificates.ts";
import { freePort, tempFolder } from "../test/support/processes.ts";
import { PAGE_BYTES } from "./pages/page-set.ts";
import { pageSets } from "./pages/sets.ts";
import { guestStream } from "./pipeline/guest-stream.ts";
import { destinationRun, KEPT_EXTRA_BYTES, Kept, type Run, sourceRun, type Way } from "./pipeline.ts";
import type { SectionOptions, SectionResult } from "./report.ts";
import { median } from "./timing.ts";

const DIRTY_ITERATIONS = 24;
/** Of the throughput in plain text, at least. */
const RATIO_GOAL = 0.85;

const CARRIED: Way = { name: "no engine, bytes carried", mode: "none", standard: true };
const CHOSEN: Way = { name: "tunnel, as the engine chooses", mode: "tunnel", standard: false };
const WAYS: readonly Way[] = [
  CARRIED,
  {
    name: "tunnel, pages as they come",
    mode: "tunnel",
    standard: true,
    entropy: { codecId: ENTROPY_NONE, level: 0 },
  },
  {
    name: "tunnel, entropy off",
    mode: "tunnel",
    standard: false,
    entropy: { codecId: ENTROPY_NONE, level: 0 },
  },
  { name: "tunnel, zstd -1", mode: "tunnel", standard: false, entropy: { codecId: ENTROPY_ZSTD, level: -1 } },
  CHOSEN,
];

interface TlsFigure {
  section: "tls";
  way: string;
  side: "source" | "destination";
  plainGuestBytesPerSecond: number;
  tlsGuestBytesPerSecond: number;
  /** Of the throughput in plain text, in the same turn. */
  ratio: number;
  /** CPU time that the engine's process needs more, per byte on the link. */
  extraCpuNsPerLinkByte: number;
}

interface Pair {
  plain: Run;
  tls: Run;
  linkBytes: number;
}

export async function tlsSection({ turns, rebuildPages }: SectionOptions): Promise<SectionResult> {
  const sets = (await pageSets(rebuildPages)).filter(({ kind }) => kind !== "synthetic");
  const stream = guestStream(sets, DIRTY_ITERATIONS);
  const kept = new Kept(stream.lengthBytes + KEPT_EXTRA_BYTES);
  const { path: tlsFolder, remove } = tempFolder();
  const pairs = new Map<string, Pair[]>();
  try {
    const authority = new Authority();
    writeTlsFolder(tlsFolder, authority, authority.issue(["127.0.0.1"]));
    for (let turn = 0; turn < turns; turn++) {
      for (const way of WAYS) {
        console.error(`tls: ${way.name}, turn ${turn + 1} of ${turns}`);
        const both = async (run: (over: Way) => Promise<Run>) => {
          const plain = async () => run({ ...way, tcp: { port: await freePort() } });
          const tls = async () => run({ ...way, tcp: { port: await freePort(), tlsFolder } });
          // Another one begins each turn.
          if (turn % 2 === 0) return { plain: await plain(), tls: await tls() };
          const second = await tls();
          return { plain: await plain(), tls: second };
        };
        const source = await both((over) => sourceRun(stream, over));
        note(pairs, `${way.name} source`, { ...source, linkBytes: source.tls.bytesOut });
        if (way.mode !== "tunnel") continue;
        kept.lengthBytes = 0;
        await sourceRun(stream, { ...way, tcp: { port: await freePort() } }, kept);
        const destination = await both((over) => destinationRun(kept.bytes, over));
        note(pairs, `${way.name} destination`, { ...destination, linkBytes: kept.lengthBytes });
      }
    }
  } finally {
    remove();
  }
  const guestBytes = stream.pages * PAGE_BYTES;
  const figures = WAYS.flatMap((way) =>
    (["source", "destination"] as const).flatMap((side) => {
      const measured = pairs.get(`${way.name} ${side}`);
      return measured === undefined ? [] : [figureOf(way.name, side, measured, guestBytes)];
    }),
  );
  return {
    name: "tls",
    title: "TLS against plain text",
    notes: [
      "TCP on loopback; the engine in a process of its own, this process at the other end of its link, which encrypts " +
        `and decrypts as much. Both in the same turns, one after the other; medians of ${turns} turns.`,
      "GB/s are of guest pages with content. What a byte on the link costs more is CPU time of the engine's process.",
    ],
    tables: [{ caption: "A migration in plain text and with TLS 1.3", table: tableOf(figures) }],
    goals: figures
      .filter(({ way }) => way === CHOSEN.name)
      .map(({ way, side, ratio }) => ({
        what: `throughput with TLS, of that without: ${way}, ${side}`,
        value: ratio,
        atLeast: RATIO_GOAL,
        unit: "",
      })),
    lines: figures,
  };
}

function note(pairs: Map<string, Pair[]>, key: string, pair: Pair): void {
  pairs.set(key, [...(pairs.get(key) ?? []), pair]);
}

function figureOf(
  way: string,
  side: TlsFigure["side"],
  measured: readonly Pair[],
  guestBytes: number,
): TlsFigure {
  return {
    section: "tls",
    way,
    side,
    plainGuestBytesPerSecond: guestBytes / median(measured.map(({ plain }) => plain.seconds)),
    tlsGuestBytesPerSecond: guestBytes / median(measured.map(({ tls }) => tls.seconds)),
    ratio: median(measured.map(({ plain, tls }) => plain.seconds / tls.seconds)),
    extraCpuNsPerLinkByte: median(
      measured.map(
        ({ plain, tls, linkBytes }) => (1e9 * (tls.engineCpuSeconds - plain.engineCpuSeconds)) / linkBytes,
      ),
    ),
  };
}

function tableOf(figures: readonly TlsFigure[]): string[][] {
  return [
    ["way", "side", "GB/s plain", "GB/s TLS", "ratio", "ns per link byte more"],
    ...figures.map((figure) => [
      figure.way,
      figure.side,
      (figure.plainGuestBytesPerSecond / 1e9).toFixed(2),
      (figure.tlsGuestBytesPerSecond / 1e9).toFixed(2),
      figure.ratio.toFixed(2),
      figure.extraCpuNsPerLinkByte.toFixed(2),
    ]),
  ];
}
