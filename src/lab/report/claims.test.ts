import { expect, test } from "vitest";
import { judgedClaims } from "./claims.ts";
import type { Contest, Group } from "./contests.ts";
import type { RunResult } from "./results.ts";

const SETTING = {
  ...{ scenario: "lmbench", parameters: {}, guest: { memoryMiB: 1024, vcpus: 1 }, qemu: "10.0" },
  link: { bytesPerSecond: 12.5e6, roundTripMs: 0, lossShare: 0 },
};

/** A run for each gap; undefined: it was not measured. */
function group(method: string, gapsMs: readonly (number | undefined)[]): Group {
  const runs = gapsMs.map(
    (gapMs, index): RunResult => ({
      ...{
        file: `${method}-${index}.ndjson`,
        experiment: "headline",
        setting: { ...SETTING, method, run: index + 1 },
      },
      ...{ startedAt: "2026-01-01T00:00:00.000Z", deltavee: "0.1.0", hypervisor: "QEMU 10.0.2" },
      ...{ converged: gapMs !== undefined, forced: false, succeeded: gapMs !== undefined, failures: [] },
      metrics: new Map(gapMs === undefined ? [] : [["heartbeatGapMs", gapMs]]),
      ...{ iterations: [], timeline: { endedMs: 1000, series: [] } },
    }),
  );
  return { method, runs };
}

test("a claim says of how many of its runs a figure is, where others could not be measured", () => {
  const groups = [group("vanilla", [5000, undefined, undefined]), group("tunnel", [50, 60])];
  const contest: Contest = { experiment: "headline", setting: SETTING, groups };
  const told = judgedClaims([contest], []).map(({ ours }) => ours);
  expect(told.join("\n")).toContain("5.0 s by vanilla (1 of 3 runs, ended ");
  expect(told.join("\n")).toMatch(/by tunnel \(2 runs, ended /);
});

test("a claim rests on what was run five times, where anything was", () => {
  const often = (gapMs: number) => Array.from({ length: 5 }, () => gapMs);
  const once: Contest = {
    ...{ experiment: "once", setting: { ...SETTING, qemu: "7.2" } },
    groups: [group("vanilla", [9000]), group("tunnel", [10])],
  };
  const repeated: Contest = {
    ...{ experiment: "repeated", setting: SETTING },
    groups: [group("vanilla", often(5000)), group("direct", [20]), group("tunnel", often(50))],
  };
  const factor = judgedClaims([once, repeated], []).find(({ claim }) => claim.measure === "downtime factor")!;
  expect(factor.ours).toContain("5.0 s by vanilla (5 runs");
  expect(factor.ours).toContain("50 ms by tunnel (5 runs");
  const alone = judgedClaims([once], []).find(({ claim }) => claim.measure === "downtime factor")!;
  expect(alone.ours).toContain("10 ms by tunnel (1 run");
});

test("what users notice is judged by the worst run, of the method of which that is the best", () => {
  const metrics = [{ name: "heartbeatGapMs", title: "frozen picture", unit: "ms" }];
  const scenarios = [{ name: "video", metrics }] as unknown as Parameters<typeof judgedClaims>[1];
  const judged = (...own: Group[]) => {
    const groups = [group("vanilla", [5000, 5100, 5000, 5000, 5000]), ...own];
    const contest: Contest = { experiment: "headline", setting: { ...SETTING, scenario: "video" }, groups };
    return judgedClaims([contest], scenarios).find(({ claim }) => claim.measure === "users notice")!;
  };
  const uneven = group("direct", [20, 20, 20, 20, 130]);
  const steady = group("tunnel", [80, 85, 90, 90, 95]);
  expect(judged(uneven, steady)).toMatchObject({
    standing: "shown",
    ours: expect.stringContaining("by tunnel"),
  });
  expect(judged(uneven).standing).toBe("shown in part");
});
