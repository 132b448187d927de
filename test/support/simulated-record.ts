// Run records for tests of what is drawn from them. The figures come from a few lines of pre-copy arithmetic
// with made-up constants: they have the shape of a migration and say nothing about Deltavee's performance.

import { VirtualClock } from "../../src/base/clock.ts";
import { type CacheStats, NO_PAGES, type PageClasses, type RecordEvent } from "../../src/record/schema.ts";
import { RunRecord } from "../../src/record/writer.ts";

const PAGE_BYTES = 4096;
const GUEST_PAGES = 16_384;
const ZERO_PAGES = 6_000;
const WORKING_SET_PAGES = 3_000;
const DIRTY_PAGES_PER_SECOND = 4_000;
const DELTA_BYTES = 300;
const LINK_BYTES_PER_SECOND = 100e6 / 8;
const HEARTBEAT_MS = 10;
const SAMPLE_MS = 200;
const ITERATIONS_MAX = 12;

export function simulatedRecord(method: "standard" | "delta", lines?: string[]): readonly RecordEvent[] {
  const clock = new VirtualClock();
  const record = new RunRecord({ clock, sink: (line) => lines?.push(line) });
  const limitBytes = method === "delta" ? GUEST_PAGES * PAGE_BYTES : 0;
  const cache: CacheStats = { hits: 0, misses: 0, evictions: 0, usedBytes: 0, limitBytes };
  const pages: PageClasses = { ...NO_PAGES };
  let handedOverBytes = 0;
  let wireBytes = 0;
  let iteration = 0;
  let remainingPages = GUEST_PAGES;
  let heartbeats = 0;
  let lastHeartbeatMs = 0;
  let side: "source" | "destination" = "source";

  const heartbeat = () => {
    const gapMs = clock.nowMs() - lastHeartbeatMs;
    lastHeartbeatMs = clock.nowMs();
    record.add({ type: "heartbeat", counter: heartbeats++, gapMs, side });
  };
  const sample = () =>
    record.add({
      type: "sample",
      handedOverBytes,
      wireBytes,
      inFlightBytes: 65_536,
      windowBytes: 131_072,
      linkBytesPerSecond: LINK_BYTES_PER_SECOND,
      iteration,
      remainingBytes: remainingPages * PAGE_BYTES,
      dirtyPagesPerSecond: iteration === 0 ? 0 : DIRTY_PAGES_PER_SECOND,
      pages: { ...pages },
      cache: { ...cache },
      cpuMs: clock.nowMs() / 10,
    });
  /** Sends one page and returns how long the link takes for it. */
  const send = (pageIndex: number): number => {
    const beforeBytes = wireBytes;
    remainingPages--;
    const isZero = iteration === 0 && pageIndex < ZERO_PAGES;
    handedOverBytes += isZero ? 9 : PAGE_BYTES + 8;
    if (isZero) {
      pages.zeroPages++;
      wireBytes += 9;
    } else if (method === "standard" || iteration === 0) {
      pages.rawPages++;
      cache.misses++;
      wireBytes += PAGE_BYTES + 8;
    } else if (pageIndex % 20 === 0) {
      pages.overflowPages++;
      cache.hits++;
      wireBytes += PAGE_BYTES + 8;
    } else if (pageIndex % 10 === 1) {
      pages.unchangedPages++;
      cache.hits++;
    } else {
      pages.deltaPages++;
      pages.deltaBytes += DELTA_BYTES;
      cache.hits++;
      wireBytes += DELTA_BYTES + 11;
    }
    cache.usedBytes = method === "delta" ? (pages.rawPages + pages.overflowPages) * PAGE_BYTES : 0;
    return ((wireBytes - beforeBytes) / LINK_BYTES_PER_SECOND) * 1000;
  };
  let nextHeartbeatMs = 0;
  let nextSampleMs = 0;
  const stepUntil = (endMs: number, guestRuns: boolean) => {
    while (clock.nowMs() < endMs) {
      clock.advance(Math.min(1, endMs - clock.nowMs()));
      if (guestRuns && clock.nowMs() >= nextHeartbeatMs) {
        heartbeat();
        // A little jitter without randomness, so that records are the same every time.
        nextHeartbeatMs = clock.nowMs() + HEARTBEAT_MS + ((heartbeats * 7) % 5) / 2;
      }
      if (clock.nowMs() >= nextSampleMs) {
        sample();
        nextSampleMs = clock.nowMs() + SAMPLE_MS;
      }
    }
  };
  const sendIteration = (pageCount: number, guestRuns: boolean) => {
    let linkMs = clock.nowMs();
    for (let pageIndex = 0; pageIndex < pageCount; pageIndex++) {
      linkMs += send(pageIndex);
      if (pageIndex % 64 === 0) stepUntil(linkMs, guestRuns);
    }
    stepUntil(linkMs, guestRuns);
  };

  record.add({
    type: "run",
    version: 1,
    startedAt: "2026-01-01T00:00:00.000Z",
    deltavee: "0.1.0",
    side: "source",
    mode: "direct",
    method,
    hypervisor: "simulated",
    destination: "host-b:4444",
    guestRamBytes: GUEST_PAGES * PAGE_BYTES,
    downtimeMsMax: 300,
    linkBytesPerSecondMax: LINK_BYTES_PER_SECOND,
    cacheBytesMax: limitBytes,
    label: `made up: ${method}`,
  });
  record.add({ type: "phase", phase: "setup" });
  clock.advance(40);
  record.add({ type: "phase", phase: "iterating" });
  lastHeartbeatMs = clock.nowMs();
  sample();
  let dirtiedPages = GUEST_PAGES;
  for (;;) {
    record.add({
      type: "iteration",
      iteration,
      remainingBytes: dirtiedPages * PAGE_BYTES,
      dirtyPagesPerSecond: iteration === 0 ? 0 : DIRTY_PAGES_PER_SECOND,
      wireBytes,
      pages: { ...pages },
    });
    const startMs = clock.nowMs();
    const isLast = iteration === ITERATIONS_MAX - 1 || (iteration > 0 && dirtiedPages < 1500);
    if (isLast) break;
    remainingPages = dirtiedPages;
    sendIteration(dirtiedPages, true);
    iteration++;
    const iterationMs = clock.nowMs() - startMs;
    dirtiedPages = Math.min(WORKING_SET_PAGES, Math.round((iterationMs / 1000) * DIRTY_PAGES_PER_SECOND));
  }
  record.add({
    type: "decision",
    subject: "switchover",
    choice: "now",
    reason: `${dirtiedPages} pages remain; at the measured link rate that is short enough, or there is no better`,
  });
  record.add({ type: "phase", phase: "switchover" });
  const stoppedMs = clock.nowMs();
  remainingPages = dirtiedPages;
  sendIteration(dirtiedPages, false);
  wireBytes += 40_000;
  clock.advance(12);
  record.add({ type: "phase", phase: "committed" });
  const downtimeMs = clock.nowMs() - stoppedMs;
  const heartbeatGapMs = clock.nowMs() - lastHeartbeatMs;
  side = "destination";
  heartbeat();
  stepUntil(clock.nowMs() + 1000, true);
  record.add({ type: "notice", message: "The destination's clock is 2 s behind." });
  record.add({ type: "phase", phase: "completed" });
  record.add({
    type: "summary",
    outcome: "completed",
    vm: "running on destination",
    totalMs: clock.nowMs(),
    downtimeMs,
    forecastDowntimeMs: downtimeMs / 3,
    downtimeMsReported: downtimeMs / 2,
    heartbeatGapMs,
    handedOverBytes,
    wireBytes,
    iterations: iteration + 1,
    pages: { ...pages },
    cache: { ...cache },
    cpuMs: clock.nowMs() / 10,
    memoryVerified: true,
  });
  return record.events;
}
