// Any valid run record, for property tests: every type of event, hostile texts, figures from nothing to absurd.

import fc from "fast-check";
import type { RecordEntry } from "../../src/record/schema.ts";

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 30 }),
  fc.constantFrom(
    "<script>alert(1)</script>",
    "\u001b[2J\u001b]0;x\u0007",
    "a\r\nb\tc",
    "‮evil",
    "\"&'</svg>",
  ),
);
const count = fc.oneof(
  fc.nat(),
  fc.double({ min: 0, max: 1e12, noNaN: true }),
  fc.constantFrom(0, 1e300, 5e-324),
);
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const pages = fc.record({
  zeroPages: count,
  unchangedPages: count,
  deltaPages: count,
  overflowPages: count,
  rawPages: count,
  deltaBytes: count,
});
const cache = fc.record({
  hits: count,
  misses: count,
  evictions: count,
  usedBytes: count,
  limitBytes: count,
});
const vm = fc.constantFrom(
  "running on source",
  "paused on source",
  "running on destination",
  "paused on destination",
  "with the destination",
  "unknown",
);
const side = fc.constantFrom("source", "destination");
const is = <T extends string>(type: T) => fc.constant(type);

const interval = fc.record({ low: count, expected: count, high: count });

const deltaSize = fc.record({
  afterMs: count,
  xbzrleBytes: count,
  tunnelBytes: count,
  wholeCodedBytes: count,
});
const guestModel = fc.record({
  pageBytes: fc.integer({ min: 1, max: 2 ** 20 }),
  pages: count,
  zeroPages: count,
  rateClasses: fc.array(
    fc.record({
      pages: count,
      changesPerSecond: count,
      deltaSizes: fc.array(deltaSize, { maxLength: 3 }),
    }),
    { maxLength: 3 },
  ),
  codedShare: fc.record({ fast: count, strong: count }),
  rewrittenPagesPerSecond: count,
  rewrittenIsKnown: optional(fc.boolean()),
  cpuMsPerPage: fc.record({ delta: count, fast: count, strong: count }),
  sampledPages: count,
  sampledMs: count,
});

const run = fc.record({
  type: is("run"),
  version: fc.constant(1),
  startedAt: text,
  deltavee: text,
  side,
  mode: fc.constantFrom("direct", "tunnel", "stock"),
  method: fc.constantFrom("standard", "delta"),
  hypervisor: text,
  destination: optional(text),
  guestRamBytes: optional(count),
  downtimeMsMax: optional(count),
  timeMsMax: optional(count),
  wireBytesMax: optional(count),
  onStall: optional(text),
  linkBytesPerSecondMax: optional(count),
  cacheBytesMax: optional(count),
  label: optional(text),
});

const lab = fc.record({
  type: is("lab"),
  scenario: text,
  parameters: fc.dictionary(text, fc.oneof(count, text), { maxKeys: 3 }),
  guest: fc.record({ memoryMiB: count, vcpus: count }),
  method: text,
  link: fc.record({ bytesPerSecond: count, roundTripMs: count, lossShare: count }),
  qemu: text,
  run: count,
  forcedAfterMs: optional(count),
  limitMs: optional(count),
  machine: optional(text),
  command: optional(text),
});

const verdict = fc.record({
  ...{ type: is("verdict"), converged: fc.boolean(), forced: fc.boolean(), succeeded: fc.boolean() },
  failures: fc.array(text, { maxLength: 3 }),
  metrics: fc.dictionary(
    fc.oneof(text, fc.constantFrom("heartbeatGapMs", "wireBytes", "totalMs", "slowdownShare", "__proto__")),
    fc.oneof(count, fc.constant(-0.25)),
    { maxKeys: 5 },
  ),
});

const event = fc.oneof(
  fc.record({
    type: is("phase"),
    phase: fc.constantFrom(
      "setup",
      "iterating",
      "switchover",
      "committed",
      "completed",
      "failed",
      "cancelled",
    ),
    reason: optional(text),
  }),
  fc.record({
    type: is("iteration"),
    iteration: count,
    remainingBytes: optional(count),
    dirtyPagesPerSecond: optional(count),
    wireBytes: count,
    pages,
  }),
  fc.record({
    type: is("sample"),
    handedOverBytes: count,
    wireBytes: count,
    inFlightBytes: count,
    windowBytes: count,
    linkBytesPerSecond: count,
    roundTripMs: optional(count),
    iteration: optional(count),
    remainingBytes: optional(count),
    dirtyPagesPerSecond: optional(count),
    forecastDowntimeMs: optional(count),
    forecastEndMs: optional(count),
    pages,
    cache: optional(cache),
    cpuMs: optional(count),
  }),
  fc.record({
    type: is("decision"),
    subject: fc.oneof(text, fc.constant("convergence")),
    choice: text,
    reason: text,
    forecastDowntimeMs: optional(count),
  }),
  fc.record({ type: is("notice"), message: text }),
  fc.record({ type: is("opaque"), offsetBytes: count, reason: text }),
  fc.record({ type: is("heartbeat"), counter: count, gapMs: count, side }),
  fc.record({ type: is("error"), code: text, message: text, vm: optional(vm) }),
  lab,
  fc.record({
    type: is("forecast"),
    method: text,
    converges: fc.constantFrom("yes", "no", "unsure"),
    totalMs: interval,
    downtimeMs: interval,
    wireBytes: interval,
    linkBytesPerSecond: count,
    roundTripMs: count,
    reason: text,
    basis: optional(
      fc.record({ guest: guestModel, lossShare: count, downtimeMsMax: count, cacheBytes: optional(count) }),
    ),
  }),
  fc.record({ type: is("client"), series: text, unit: text, value: count }),
  fc.record({
    ...{ type: is("usage"), side, process: fc.constantFrom("qemu", "deltavee") },
    ...{ cpuMs: count, residentBytesMax: count },
  }),
  verdict,
);

const summary = fc.record({
  type: is("summary"),
  outcome: fc.constantFrom("completed", "failed", "cancelled"),
  vm,
  totalMs: count,
  downtimeMs: optional(count),
  forecastDowntimeMs: optional(count),
  downtimeMsReported: optional(count),
  heartbeatGapMs: optional(count),
  handedOverBytes: count,
  wireBytes: count,
  iterations: optional(count),
  pages,
  cache: optional(cache),
  cpuMs: optional(count),
  memoryVerified: optional(fc.boolean()),
});

/** Entries in order, each with the time that passes before it. */
export const arbitraryEntries: fc.Arbitrary<{ afterMs: number; entry: RecordEntry }[]> = timed(
  fc
    .tuple(run, fc.array(event, { maxLength: 40 }), optional(summary))
    .map(
      ([first, middle, last]) => [first, ...middle, ...(last === undefined ? [] : [last])] as RecordEntry[],
    ),
);

/** Those of a run of the lab, from its beginning to its end. */
export const arbitraryLabEntries: fc.Arbitrary<{ afterMs: number; entry: RecordEntry }[]> = timed(
  fc
    .tuple(run, lab, fc.array(event, { maxLength: 40 }), verdict, summary)
    .map(([first, what, middle, judged, last]) => {
      const others = middle.filter(({ type }) => type !== "lab" && type !== "verdict");
      return [first, what, ...others, judged, last] as RecordEntry[];
    }),
);

function timed(all: fc.Arbitrary<RecordEntry[]>): fc.Arbitrary<{ afterMs: number; entry: RecordEntry }[]> {
  const afterMs = fc.oneof(fc.constant(0), fc.nat(5000), fc.double({ min: 0, max: 1e9, noNaN: true }));
  return all.chain((entries) =>
    fc
      .array(afterMs, { minLength: entries.length, maxLength: entries.length })
      .map((times) => entries.map((entry, index) => ({ entry, afterMs: times[index] ?? 0 }))),
  );
}
