// Metrics from run records: that what they say is what the records say, and that labels stay few whatever is recorded.

import { describe, expect, test } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import type { CacheStats, PageClasses, RecordEntry, RecordEvent } from "../record/schema.ts";
import { NO_PAGES } from "../record/schema.ts";
import { RunRecord } from "../record/writer.ts";
import { Metrics, VMS_MAX } from "./metrics.ts";

type Sample = Extract<RecordEntry, { type: "sample" }>;

const CACHE: CacheStats = { hits: 0, misses: 0, evictions: 0, usedBytes: 1000, limitBytes: 5000 };

function setUp(hasVmNames = false) {
  const clock = new VirtualClock();
  const metrics = new Metrics({ version: "1.2.3", hasVmNames });
  return {
    clock,
    metrics,
    /** A record whose events are observed as they are in earnest: checked, and stamped. */
    open(id: string, vm?: string): RunRecord {
      return new RunRecord({ clock, listeners: [(event: RecordEvent) => metrics.observe(id, event, vm)] });
    },
    /** `name{labels}` → value, of all lines. */
    async values(): Promise<Map<string, number>> {
      const lines = (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
      return new Map(
        lines.map((line) => {
          const at = line.lastIndexOf(" ");
          return [line.slice(0, at), Number(line.slice(at + 1))];
        }),
      );
    },
  };
}

function forecastTenSeconds(record: RunRecord): void {
  const interval = { low: 1, expected: 10_000, high: 30_000 };
  record.add({
    ...{ type: "forecast", method: "tunnel", converges: "yes", reason: "" },
    ...{
      totalMs: interval,
      downtimeMs: interval,
      wireBytes: interval,
      linkBytesPerSecond: 1,
      roundTripMs: 1,
    },
  });
}

function begin(record: RunRecord, side: "source" | "destination" = "source"): void {
  record.add({
    type: "run",
    version: 1,
    startedAt: "2026-01-01T00:00:00Z",
    deltavee: "1.2.3",
    side,
    mode: "tunnel",
    method: "delta",
    hypervisor: "QEMU 10.0.2",
  });
  record.add({ type: "phase", phase: "setup" });
}

function sample(of: Partial<Sample> & { pages?: PageClasses } = {}): Sample {
  return {
    type: "sample",
    handedOverBytes: 0,
    wireBytes: 0,
    inFlightBytes: 0,
    windowBytes: 0,
    linkBytesPerSecond: 0,
    pages: NO_PAGES,
    ...of,
  };
}

function end(record: RunRecord, of: Partial<Extract<RecordEntry, { type: "summary" }>> = {}): void {
  record.add({
    type: "summary",
    outcome: "completed",
    vm: "with the destination",
    totalMs: 20_000,
    handedOverBytes: 0,
    wireBytes: 0,
    pages: NO_PAGES,
    ...of,
  });
}

describe("metrics of run records", () => {
  test("counters add up over runs, and count nothing twice that is said again", async () => {
    const { open, values } = setUp();
    const [a, b] = [open("a"), open("b")];
    begin(a);
    begin(b);
    const pages = { ...NO_PAGES, zeroPages: 3, deltaPages: 10, duplicatePages: 2, deltaBytes: 700 };
    const of = {
      handedOverBytes: 40_960,
      wireBytes: 1000,
      pages,
      cache: { ...CACHE, hits: 10, misses: 4, evictions: 2 },
    };
    a.add(sample(of));
    a.add(sample(of));
    b.add(sample({ handedOverBytes: 100, wireBytes: 200 }));
    end(a, { ...of, handedOverBytes: 50_000, wireBytes: 1500 });
    const now = await values();
    expect(now.get('deltavee_handed_over_bytes_total{side="source"}')).toBe(50_100);
    expect(now.get('deltavee_wire_bytes_total{side="source"}')).toBe(1700);
    expect(now.get('deltavee_guest_pages_total{class="delta"}')).toBe(10);
    expect(now.get('deltavee_guest_bytes_total{class="delta"}')).toBe(40_960);
    expect(now.get('deltavee_guest_pages_total{class="zero"}')).toBe(3);
    expect(now.get('deltavee_guest_pages_total{class="duplicate"}')).toBe(2);
    expect(now.get("deltavee_delta_bytes_total")).toBe(700);
    expect(now.get("deltavee_page_cache_hits_total")).toBe(10);
    expect(now.get("deltavee_page_cache_misses_total")).toBe(4);
    expect(now.get("deltavee_page_cache_evictions_total")).toBe(2);
    expect(now.get('deltavee_migrations_started_total{side="source",mode="tunnel"}')).toBe(2);
    expect(now.get('deltavee_migrations_ended_total{side="source",outcome="completed"}')).toBe(1);
    expect(now.get("deltavee_wire_ratio_sum")).toBeCloseTo(1500 / 50_000);
  });

  test("gauges say what is under way now, and forget what is over", async () => {
    const { open, values, metrics } = setUp();
    const [a, b] = [open("a"), open("b")];
    begin(a);
    a.add({ type: "phase", phase: "iterating" });
    begin(b, "destination");
    const of = {
      linkBytesPerSecond: 500,
      inFlightBytes: 70,
      remainingBytes: 8000,
      roundTripMs: 12,
      dirtyPagesPerSecond: 300,
      cache: CACHE,
    };
    a.add(sample(of));
    b.add(sample({ roundTripMs: 5, remainingBytes: 1, dirtyPagesPerSecond: 20, linkBytesPerSecond: 40 }));
    const during = await values();
    expect(during.get('deltavee_migrations_running{side="source",phase="iterating"}')).toBe(1);
    expect(during.get('deltavee_migrations_running{side="source",phase="setup"}')).toBeUndefined();
    expect(during.get('deltavee_migrations_running{side="destination",phase="setup"}')).toBe(1);
    expect(during.get('deltavee_link_bytes_per_second{side="source"}')).toBe(500);
    expect(during.get('deltavee_in_flight_bytes{side="source"}')).toBe(70);
    expect(during.get('deltavee_link_bytes_per_second{side="destination"}')).toBe(40);
    expect(during.get("deltavee_remaining_bytes")).toBe(8001);
    expect(during.get("deltavee_dirty_pages_per_second")).toBe(320);
    expect(during.get("deltavee_round_trip_seconds")).toBe(0.012);
    expect(during.get("deltavee_page_cache_bytes")).toBe(1000);
    expect(during.get("deltavee_page_cache_limit_bytes")).toBe(5000);
    end(a);
    metrics.forget("b");
    const after = await values();
    expect([...after.keys()].filter((name) => name.startsWith("deltavee_migrations_running"))).toEqual([]);
    expect([...after.keys()].filter((name) => name.startsWith("deltavee_link_bytes"))).toEqual([]);
    expect(after.get("deltavee_remaining_bytes")).toBe(0);
    expect(after.get("deltavee_page_cache_bytes")).toBe(0);
  });

  test("times are in seconds, forecasts are compared with what came", async () => {
    const { open, values, clock } = setUp();
    const record = open("a");
    begin(record);
    clock.advance(1500);
    record.add({ type: "phase", phase: "iterating" });
    forecastTenSeconds(record);
    end(record, { totalMs: 12_000, downtimeMs: 80, forecastDowntimeMs: 110, iterations: 4 });
    const now = await values();
    expect(now.get('deltavee_phase_duration_seconds_sum{side="source",phase="setup"}')).toBe(1.5);
    expect(now.get('deltavee_migration_duration_seconds_sum{side="source",outcome="completed"}')).toBe(12);
    expect(now.get('deltavee_downtime_seconds_bucket{le="0.05",side="source"}')).toBe(0);
    expect(now.get('deltavee_downtime_seconds_bucket{le="0.1",side="source"}')).toBe(1);
    expect(now.get('deltavee_downtime_forecast_error_seconds_sum{actual="shorter"}')).toBeCloseTo(0.03);
    expect(now.get('deltavee_duration_forecast_error_ratio_sum{actual="longer"}')).toBeCloseTo(0.2);
    expect(now.get('deltavee_migration_iterations_sum{side="source"}')).toBe(4);
  });

  test("one that failed or was cancelled is no downtime, and is counted by its error", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record);
    record.add({ type: "error", code: "LINK_LOST", message: "gone", vm: "running on source" });
    end(record, { outcome: "failed", vm: "running on source", downtimeMs: 3000 });
    const now = await values();
    expect(now.get('deltavee_errors_total{code="LINK_LOST"}')).toBe(1);
    expect(now.get('deltavee_migrations_ended_total{side="source",outcome="failed"}')).toBe(1);
    expect(now.get('deltavee_downtime_seconds_count{side="source"}')).toBeUndefined();
  });

  test("a link that broke and came back", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record);
    record.add({ type: "link", state: "lost", reason: "reset" });
    record.add({ type: "link", state: "resumed", outageMs: 2500, resentBytes: 900 });
    const now = await values();
    expect(now.get('deltavee_link_losses_total{side="source"}')).toBe(1);
    expect(now.get('deltavee_link_outage_seconds_sum{side="source"}')).toBe(2.5);
    expect(now.get('deltavee_resent_bytes_total{side="source"}')).toBe(900);
  });

  test("whatever codes are recorded, there are few values of a label", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record);
    for (let i = 0; i < 1000; i++) record.add({ type: "error", code: `CODE_${i}`, message: "" });
    record.add({ type: "error", code: 'x"} 1\nevil', message: "" });
    const codes = [...(await values()).keys()].filter((name) => name.startsWith("deltavee_errors_total"));
    expect(codes).toHaveLength(65);
    expect((await values()).get('deltavee_errors_total{code="other"}')).toBe(1000 - 64 + 1);
  });

  test("VMs are told apart only where that was asked for, and only so many at a time", async () => {
    const named = async (hasVmNames: boolean) => {
      const { open, values } = setUp(hasVmNames);
      for (let i = 0; i < VMS_MAX + 20; i++) {
        const record = open(`run ${i}`, `vm-${i}`);
        begin(record);
        record.add(sample({ wireBytes: i, remainingBytes: 1, forecastDowntimeMs: 20 }));
        if (i < 10) end(record);
      }
      return [...(await values()).keys()].filter((name) => name.includes("vm="));
    };
    expect(await named(false)).toEqual([]);
    const names = await named(true);
    expect(names).toHaveLength(3 * VMS_MAX);
    expect(names).toContain('deltavee_vm_wire_bytes{vm="vm-10"}');
    expect(names).not.toContain('deltavee_vm_wire_bytes{vm="vm-9"}');
  });

  test("of a VM it is said what it has, in base units", async () => {
    const { open, values } = setUp(true);
    const record = open("a", "web-1");
    begin(record);
    record.add(sample({ wireBytes: 7, remainingBytes: 4096, forecastDowntimeMs: 20 }));
    const now = await values();
    expect(now.get('deltavee_vm_wire_bytes{vm="web-1"}')).toBe(7);
    expect(now.get('deltavee_vm_remaining_bytes{vm="web-1"}')).toBe(4096);
    expect(now.get('deltavee_vm_forecast_downtime_seconds{vm="web-1"}')).toBe(0.02);
    end(record);
    expect([...(await values()).keys()].filter((name) => name.includes("vm="))).toEqual([]);
  });

  test("what the service is, what waits in it, and what it may send", async () => {
    const { metrics, values } = setUp();
    const before = await values();
    expect(before.get(`deltavee_build_info{version="1.2.3",node="${process.versions.node}"}`)).toBe(1);
    expect(before.get("deltavee_migrations_queued")).toBe(0);
    expect(before.has("deltavee_link_limit_bytes_per_second")).toBe(false);
    let queued = 2;
    metrics.watchService({ queued: () => queued, linkLimitBytesPerSecond: 1e6 });
    expect((await values()).get("deltavee_migrations_queued")).toBe(2);
    queued = 5;
    expect((await values()).get("deltavee_migrations_queued")).toBe(5);
    expect((await values()).get("deltavee_link_limit_bytes_per_second")).toBe(1e6);
  });

  test("decisions by their subject, notices by their side, and what post-copy guests waited for", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record, "destination");
    record.add({ type: "decision", subject: "convergence", choice: "wait", reason: "" });
    record.add({ type: "decision", subject: "convergence", choice: "go on", reason: "" });
    record.add({ type: "decision", subject: "switchover", choice: "stop", reason: "" });
    record.add({ type: "notice", message: "look" });
    record.add(sample({ requestedBytes: 4096 }));
    record.add(sample({ requestedBytes: 12_288 }));
    const now = await values();
    expect(now.get('deltavee_decisions_total{subject="convergence"}')).toBe(2);
    expect(now.get('deltavee_decisions_total{subject="switchover"}')).toBe(1);
    expect(now.get('deltavee_notices_total{side="destination"}')).toBe(1);
    expect(now.get("deltavee_postcopy_requested_bytes_total")).toBe(12_288);
    end(record, { requestedBytes: 16_384 });
    expect((await values()).get("deltavee_postcopy_requested_bytes_total")).toBe(16_384);
  });

  test("pages that only an iteration tells of are counted, and each once", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record);
    const pages = { ...NO_PAGES, rawPages: 4 };
    record.add({ type: "iteration", iteration: 1, wireBytes: 0, pages });
    expect((await values()).get('deltavee_guest_pages_total{class="raw"}')).toBe(4);
    record.add(sample({ pages: { ...NO_PAGES, rawPages: 6 } }));
    expect((await values()).get('deltavee_guest_pages_total{class="raw"}')).toBe(6);
  });

  test("shorter and longer than forecast are told apart", async () => {
    const { open, values } = setUp();
    const record = open("a");
    begin(record);
    forecastTenSeconds(record);
    end(record, { totalMs: 5000, downtimeMs: 80, forecastDowntimeMs: 50 });
    const now = await values();
    expect(now.get('deltavee_downtime_forecast_error_seconds_sum{actual="longer"}')).toBeCloseTo(0.03);
    expect(now.get('deltavee_duration_forecast_error_ratio_sum{actual="shorter"}')).toBeCloseTo(0.5);
  });

  test("names are as Prometheus has them: counters end in _total, and units are base units", async () => {
    const { metrics } = setUp();
    const all = (await metrics.registry.getMetricsAsJSON()).filter(({ name }) =>
      name.startsWith("deltavee_"),
    );
    expect(all.length).toBeGreaterThan(30);
    for (const { name, type, help } of all) {
      expect(name).toMatch(/^deltavee(_[a-z]+)+$/);
      // An enum of prom-client's, or its name: by version.
      const isCounter = String(type) === "counter" || String(type) === "0";
      expect(`${name}: ${isCounter}`).toBe(`${name}: ${name.endsWith("_total")}`);
      expect(name).not.toMatch(/_ms|millis|kilobytes|percent/);
      expect(help).toMatch(/^[A-Z].*\.$/);
    }
  });
});
