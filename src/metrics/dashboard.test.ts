// The Grafana dashboard against the metrics that there are: no query for what nobody says, no label that it has not.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Metrics } from "./metrics.ts";

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: { defaults: { unit?: string } };
  targets?: { expr: string }[];
}

const dashboard = JSON.parse(
  readFileSync(new URL("../../packaging/grafana/deltavee.json", import.meta.url), "utf8"),
) as { panels: Panel[]; templating: { list: { name: string; query: unknown }[] } };

const NAME = /\b(?:deltavee|process|nodejs)_[a-z0-9_]+/g;
/** Given by whoever scrapes. */
const LABELS_OF_SCRAPE = ["instance", "job", "le"];

/** Names as they can be queried → labels. */
async function known(): Promise<Map<string, readonly string[]>> {
  const { registry } = new Metrics({ version: "1.2.3", hasVmNames: true });
  const names = new Map<string, readonly string[]>();
  for (const { name } of await registry.getMetricsAsJSON()) {
    const metric = registry.getSingleMetric(name) as unknown as { labelNames: string[]; buckets?: unknown };
    const suffixes = metric.constructor.name === "Histogram" ? ["_bucket", "_sum", "_count"] : [""];
    for (const suffix of suffixes) names.set(`${name}${suffix}`, metric.labelNames);
  }
  return names;
}

const queries = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr }) => [title, expr] as const),
);

test("every query is for a metric that there is, with labels that it has", async () => {
  const names = await known();
  expect(queries.length).toBeGreaterThan(20);
  for (const [title, expr] of queries) {
    const asked = expr.match(NAME) ?? [];
    expect(asked.length, title).toBeGreaterThan(0);
    for (const name of asked) expect([...names.keys()], `${title}: ${name}`).toContain(name);
    const labels = new Set(asked.flatMap((name) => [...LABELS_OF_SCRAPE, ...(names.get(name) ?? [])]));
    // A label that another metric of the query has would match nothing, silently.
    for (const [, name, selector] of expr.matchAll(/(\w+)?\{([^}]*)\}/g)) {
      const own = [...LABELS_OF_SCRAPE, ...(names.get(name ?? "") ?? [])];
      for (const [, label] of selector!.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)) {
        expect(own, `${title}: ${label} of ${name}`).toContain(label);
      }
    }
    for (const [, by] of expr.matchAll(/by \(([^)]*)\)/g)) {
      for (const label of by!.split(",")) expect([...labels], `${title}: ${label}`).toContain(label.trim());
    }
  }
  expect(JSON.stringify(dashboard.templating)).toContain("label_values(deltavee_build_info, instance)");
});

test("every panel says what it shows, in which unit, and covers no other", () => {
  const shown = dashboard.panels.filter(({ type }) => type !== "row");
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
