// The Grafana dashboard against the metrics that there are: no query for what nobody says, no label that it has not, no
// axis of another unit; and a file that Grafana takes.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type MetricFacts, readQuery, type Unit } from "../../test/support/promql.ts";
import { Metrics } from "./metrics.ts";

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: { defaults: { unit?: string } };
  datasource?: unknown;
  targets?: { refId: string; expr: string; legendFormat?: string; datasource?: unknown }[];
}

const dashboard = JSON.parse(
  readFileSync(new URL("../../packaging/grafana/deltavee.json", import.meta.url), "utf8"),
) as { panels: Panel[]; templating: { list: { name: string; type: string; query: unknown }[] } };

type Target = NonNullable<Panel["targets"]>[number];

/** Names as they can be queried. */
async function known(): Promise<Map<string, MetricFacts>> {
  const { registry } = new Metrics({ version: "1.2.3", hasVmNames: true });
  const names = new Map<string, MetricFacts>();
  for (const { name, type } of await registry.getMetricsAsJSON()) {
    const { labelNames } = registry.getSingleMetric(name) as unknown as { labelNames: string[] };
    const kind = String(type) as MetricFacts["type"];
    const suffixes = kind === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    for (const suffix of suffixes) names.set(`${name}${suffix}`, { type: kind, labels: labelNames });
  }
  return names;
}

const metrics = await known();
const shown = dashboard.panels.filter(({ type }) => type !== "row");
const queries = shown.flatMap((panel) => (panel.targets ?? []).map((target) => ({ panel, ...target })));

/** Grafana's names of units; of "short" and "percentunit" both are numbers, and the second is a share. */
const UNITS: Readonly<Record<string, { unit: Unit; isShare: boolean }>> = {
  s: { unit: { seconds: 1, bytes: 0, pages: 0 }, isShare: false },
  bytes: { unit: { seconds: 0, bytes: 1, pages: 0 }, isShare: false },
  Bps: { unit: { seconds: -1, bytes: 1, pages: 0 }, isShare: false },
  short: { unit: { seconds: 0, bytes: 0, pages: 0 }, isShare: false },
  percentunit: { unit: { seconds: 0, bytes: 0, pages: 0 }, isShare: true },
};
/** Two kinds on one axis, on purpose; the legend says of which each is. */
const OTHER_KIND = ["dirtied per second", "event loop late by, 99 % (s)", "cores used"];

test.each(queries)(
  "$panel.title, $refId: a query of metrics and labels that there are, in the panel's unit",
  (query) => {
    const { panel, expr, legendFormat = "" } = query;
    // Anything that is not PromQL is thrown.
    const { unit, isShare, labels } = readQuery(expr, metrics);
    // A label of the legend that the series have not is left empty, silently.
    for (const [, label] of legendFormat.matchAll(/\{\{(.*?)\}\}/g)) expect([...labels]).toContain(label);
    // Several series without a legend look alike.
    if (labels.size > 0) expect(legendFormat).toMatch(/\{\{/);
    if (OTHER_KIND.includes(legendFormat)) return;
    const axis = UNITS[panel.fieldConfig!.defaults.unit!]!;
    expect(axis, panel.fieldConfig!.defaults.unit).toBeDefined();
    expect({ unit, isShare }).toEqual(axis);
  },
);

test("what is allowed to be of another kind is there", () => {
  expect(queries.map(({ legendFormat }) => legendFormat)).toEqual(expect.arrayContaining(OTHER_KIND));
});

test.each([
  ['sum(deltavee_wire_bytes_total{instance="a"})', /before its rate/],
  ['rate(deltavee_remaining_bytes{instance="a"}[5m])', /of a counter/],
  ['sum by (code) (deltavee_in_flight_bytes{instance="a"})', /label code/],
  ['sum(deltavee_in_flight_bytes{code="a"})', /has no label code/],
  ['sum(deltavee_in_flight_byte{instance="a"})', /no metric/],
  ['sum(deltavee_in_flight_bytes{instance="a"}', /too soon/],
  [
    'sum(deltavee_in_flight_bytes{instance="a"}) + sum(deltavee_round_trip_seconds{instance="a"})',
    /one kind/,
  ],
  ['histogram_quantile(0.5, sum(rate(deltavee_downtime_seconds_bucket{instance="a"}[5m])))', /bounds/],
  ['sum(rate(deltavee_wire_bytes_total{instance="a"}[5 minutes]))', /no duration/],
])("%s is no good query", (expr, why) => {
  expect(() => readQuery(expr, metrics)).toThrow(why);
});

test("the main fields are as Grafana reads them: a file to be imported, of whatever data source is chosen", () => {
  expect(dashboard).toMatchObject({
    uid: expect.stringMatching(/^[a-zA-Z0-9_-]{1,40}$/),
    title: expect.stringMatching(/\w/),
    schemaVersion: expect.any(Number),
    version: expect.any(Number),
    tags: expect.any(Array),
    time: { from: expect.stringMatching(/^now-/), to: "now" },
    refresh: expect.stringMatching(/^\d+[sm]$/),
    annotations: { list: [] },
  });
  // It is given a new one by who imports it; one of ours would take another dashboard's place.
  expect(dashboard).not.toHaveProperty("id");
  const variables = dashboard.templating.list.map(({ name, type }) => [name, type]);
  expect(variables).toEqual([
    ["datasource", "datasource"],
    ["instance", "query"],
  ]);
  expect(JSON.stringify(dashboard.templating)).toContain("label_values(deltavee_build_info, instance)");
  // biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana fills it in
  const source = { type: "prometheus", uid: "${datasource}" };
  for (const panel of shown) {
    expect(["stat", "timeseries"]).toContain(panel.type);
    expect(panel.datasource, panel.title).toEqual(source);
    const targets = panel.targets ?? [];
    expect(targets.length, panel.title).toBeGreaterThan(0);
    for (const target of targets) expect(target.datasource, panel.title).toEqual(source);
    const refs = targets.map(({ refId }: Target) => refId);
    expect(new Set(refs).size, panel.title).toBe(refs.length);
  }
});

test("every panel says what it shows, in which unit, and covers no other", () => {
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  for (const { title, description, fieldConfig } of shown) {
    expect(title).not.toBe("");
    expect(description, title).toMatch(/\w/);
    expect(fieldConfig?.defaults.unit, title).toMatch(/\w/);
  }
  for (const a of dashboard.panels) {
    expect(a.gridPos.x + a.gridPos.w).toBeLessThanOrEqual(24);
    for (const b of dashboard.panels) {
      if (a.id >= b.id) continue;
      const [p, q] = [a.gridPos, b.gridPos];
      const isApart = p.x + p.w <= q.x || q.x + q.w <= p.x || p.y + p.h <= q.y || q.y + q.h <= p.y;
      expect(isApart, `${a.title} and ${b.title}`).toBe(true);
    }
  }
});
