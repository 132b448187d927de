// docs/operations.md against the program: its tables of settings and metrics are these, and its unit fits the settings.
// UPDATE_DOCS=1 writes the tables anew.

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseMs } from "../base/units.ts";
import { Metrics } from "../metrics/metrics.ts";
import { describeSettings } from "../service/settings.ts";
import { parseSettings } from "../service/settings-file.ts";
import { commandsFor } from "./commands.ts";

const DOCUMENT = fileURLToPath(new URL("../../docs/operations.md", import.meta.url));
const UNIT = fileURLToPath(new URL("../../packaging/deltavee.service", import.meta.url));

function settingsTable(): string {
  const rows = describeSettings().map(
    ({ key, default: written, description }) =>
      `| \`${key}\` | ${written === undefined ? "–" : `\`${written}\``} | ${description} |`,
  );
  return ["| key | default | what it is |", "|---|---|---|", ...rows].join("\n");
}

function metricsTable(): string {
  const { registry } = new Metrics({ version: "1.2.3", hasVmNames: true });
  const rows = registry.getMetricsAsArray().flatMap((metric) => {
    const { name, help, labelNames } = metric as unknown as {
      name: string;
      help: string;
      labelNames: string[];
    };
    if (!name.startsWith("deltavee_")) return [];
    const kind = metric.constructor.name.toLowerCase();
    const labels = labelNames.map((label) => `\`${label}\``).join(", ");
    return [`| \`${name}\` | ${kind} | ${labels === "" ? "–" : labels} | ${help} |`];
  });
  return ["| metric | kind | labels | what it is |", "|---|---|---|---|", ...rows].join("\n");
}

test.each([
  ["settings", settingsTable],
  ["metrics", metricsTable],
])("the table of %s is that of the program", (name, table) => {
  const text = readFileSync(DOCUMENT, "utf8");
  const [begin, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)];
  expect(to).toBeGreaterThan(from - 1);
  const wanted = `${table()}\n`;
  if (process.env.UPDATE_DOCS === "1") writeFileSync(DOCUMENT, text.slice(0, from) + wanted + text.slice(to));
  else expect(text.slice(from, to)).toBe(wanted);
});

test("commands in the document are commands of the program", async () => {
  const text = readFileSync(DOCUMENT, "utf8");
  const all = await commandsFor([]);
  const used = [
    ...text.matchAll(
      /(?:^|`|&& )deltavee ((?:config|service|evacuate|serve|plan|status|recover|report)(?: [a-z-]+)?)/gm,
    ),
  ];
  expect(used.length).toBeGreaterThan(10);
  for (const [, words] of used) {
    const [first, second] = words!.split(" ");
    const command = all.find((each) => each.name() === first);
    expect(command?.name(), words).toBe(first);
    if (command!.commands.length > 0 && second !== undefined) {
      expect(
        command!.commands.map((below) => below.name()),
        words,
      ).toContain(second);
    }
  }
});

test("the unit gives the service the time that its settings let it take, and keeps the guards alive", () => {
  const unit = readFileSync(UNIT, "utf8");
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1];
  const { graceTime } = parseSettings("", "serve.yaml").shutdown;
  expect(parseMs(value("TimeoutStopSec")!)).toBeGreaterThan(graceTime + 60_000);
  expect(value("KillMode")).toBe("process");
  expect(value("ExecStart")).toBe("/usr/bin/env deltavee serve --config /etc/deltavee/serve.yaml");
});

test("systemd finds nothing wrong with the unit", (context) => {
  const { status, stderr, error } = spawnSync("systemd-analyze", ["verify", UNIT], { encoding: "utf8" });
  if (error !== undefined) context.skip(`systemd-analyze cannot be run here: ${error.message}`);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
});
