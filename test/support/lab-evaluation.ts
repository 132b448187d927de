// A small made-up evaluation: three scenarios, four methods, a sweep. For tests of documents and pages drawn from it.

import type { ScenarioInfo } from "../../src/lab/report/metrics.ts";
import { type LabRecordOptions, labRuns } from "./lab-records.ts";

export const SCENARIOS: readonly ScenarioInfo[] = [
  {
    name: "video",
    title: "Streaming video",
    description: "A server that streams a clip; a client that notes when each frame could be shown.",
    metrics: [{ name: "frozenMs", title: "frozen picture", unit: "ms", isLowerBetter: true }],
  },
  {
    name: "enterprise",
    title: "Enterprise system",
    description: "A database with sessions and leases.",
    metrics: [
      { name: "failedTransactions", title: "failed transactions", unit: "", isLowerBetter: true },
      { name: "transactionsPerSecond", title: "throughput while moving", unit: "1/s", isLowerBetter: false },
    ],
  },
  {
    name: "writer",
    title: "Paced writer",
    description: "Writes so many bytes per page in so many pages per second.",
    metrics: [],
  },
  { name: "idle", title: "Idle", description: "Does nothing.", metrics: [] },
];

const FORCED = { converged: false, forced: true, succeeded: true } as const;

function runs(
  scenario: string,
  method: string,
  gapsMs: readonly number[],
  metrics: Record<string, number>,
  options: LabRecordOptions = {},
): Record<string, string> {
  const costs = { sourceCpuMs: method === "vanilla" ? 900 : 2500, sourceResidentBytesMax: 1.2e9, ...metrics };
  return labRuns("headline", gapsMs, {
    ...options,
    lab: { scenario, method, forcedAfterMs: 20_000, ...options.lab },
    verdict: { ...options.verdict, metrics: costs },
    series: [
      { series: "frames per second", unit: "1/s", values: [25, 25, 24] },
      { series: "delay of the picture", unit: "ms", values: [40, 41, 40 + (gapsMs[0] ?? 0)] },
    ],
  });
}

function sweepRuns(): Record<string, string> {
  const cells = [1000, 4000, 16_000].flatMap((dirtyPagesPerSecond) =>
    [16, 256, 4096].flatMap((bytesPerPage) => {
      const load = dirtyPagesPerSecond * bytesPerPage;
      const parameters = { dirtyPagesPerSecond, bytesPerPage };
      const isForced = dirtyPagesPerSecond > 2000;
      return [
        labRuns("sweep", isForced ? [4000, 4400] : [250, 260], {
          lab: { scenario: "writer", method: "vanilla", parameters },
          verdict: { ...(isForced ? FORCED : {}), metrics: { wireBytes: 1e9 } },
        }),
        labRuns("sweep", load > 2e7 ? [900, 1000] : [60, 300], {
          lab: { scenario: "writer", method: "tunnel", parameters },
          verdict: { ...(load > 2e7 ? FORCED : {}), metrics: { wireBytes: 2e8 + load * 10 } },
        }),
      ];
    }),
  );
  return Object.assign({}, ...cells) as Record<string, string>;
}

/** Texts of records by their paths. */
export function evaluationFiles(): Record<string, string> {
  const lost = { ...FORCED, succeeded: false, failures: ["3 sessions lost", "service down for 7 s"] };
  return {
    ...runs("video", "vanilla", [7900, 8100, 8000], { frozenMs: 7900 }, { verdict: FORCED }),
    ...runs("video", "multifd-zstd", [900, 950, 800], { frozenMs: 850 }),
    ...runs("video", "tunnel", [52, 60, 55], { frozenMs: 20 }, { iterationBytes: [110e6, 9e6, 3e6, 1e6] }),
    ...runs(
      "enterprise",
      "vanilla",
      [6400],
      { failedTransactions: 12, transactionsPerSecond: 40 },
      { verdict: lost },
    ),
    ...runs("enterprise", "xbzrle-full", [700], { failedTransactions: 0, transactionsPerSecond: 70 }),
    ...runs("enterprise", "tunnel", [90], { failedTransactions: 0, transactionsPerSecond: 80 }),
    ...sweepRuns(),
  };
}
