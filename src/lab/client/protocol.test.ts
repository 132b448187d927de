import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { type ClientProcess, startClientProcess } from "../client-process.ts";
import { tempFolder } from "../host-process.ts";
import { parseMessage } from "./protocol.ts";

const PROTOCOL = pathToFileURL(join(PACKAGE_ROOT, "dist/lab/client/protocol.js")).href;
const TIMEOUT_MS = 120_000;

const folder = tempFolder();
const started: ClientProcess[] = [];

async function client(body: string, options: Readonly<Record<string, unknown>> = {}): Promise<ClientProcess> {
  const path = join(folder.path, `client-${started.length}.mjs`);
  writeFileSync(path, `import { runClient } from "${PROTOCOL}";\nrunClient(async (lab) => { ${body} });\n`);
  const process = await startClientProcess(path, options);
  started.push(process);
  return process;
}

afterEach(async () => {
  await Promise.all(started.map((each) => each.stop()));
});

afterAll(() => folder.remove());

describe("a client program", () => {
  it("gets its options, hears what happens to the guest, and tells what it has seen", async () => {
    const seen = join(folder.path, "seen-");
    const body = `
      const { writeFileSync } = await import("node:fs");
      const phases = [lab.phase];
      const waitForPhase = async (phase) => {
        while (lab.phase !== phase) await new Promise((resolve) => setTimeout(resolve, 1));
        phases.push(phase);
        writeFileSync(${JSON.stringify(seen)} + phase, "");
      };
      lab.ready();
      await waitForPhase("during");
      await waitForPhase("after");
      await lab.finishing;
      const tookMs = lab.migrationEndedMs - lab.migrationBeganMs;
      const points = [{ epochMs: lab.migrationBeganMs, value: lab.options.port }];
      const series = [{ name: "port", unit: "", points }];
      return { metrics: { isPositive: tookMs >= 0 ? 1 : 0 }, failures: phases, series };
    `;
    const process = await client(body, { port: 5432 });
    await process.ready(TIMEOUT_MS);
    process.tell("migration-begins");
    // Else the second word may arrive with the first.
    await expect.poll(() => existsSync(`${seen}during`)).toBe(true);
    process.tell("migration-ended");
    const view = await process.finish();
    expect(view.metrics).toEqual({ isPositive: 1 });
    expect(view.failures).toEqual(["before", "during", "after"]);
    expect(view.series[0]?.points[0]?.value).toBe(5432);
    expect(Math.abs(view.series[0]!.points[0]!.epochMs - Date.now())).toBeLessThan(TIMEOUT_MS);
  });

  it("may print what is no message", async () => {
    const process = await client(
      `console.log("hello"); console.log("{}"); lab.ready(); await lab.finishing; return { metrics: {}, failures: [], series: [] };`,
    );
    await process.ready(TIMEOUT_MS);
    await expect(process.finish()).resolves.toEqual({ metrics: {}, failures: [], series: [] });
  });

  it("that throws has its reason told to whoever waits", async () => {
    const process = await client(`throw new Error("the guest is not there");`);
    await expect(process.ready(TIMEOUT_MS)).rejects.toThrow("the guest is not there");
    await expect(process.finish()).rejects.toThrow("the guest is not there");
  });

  it("cannot pass off as a figure what is none", async () => {
    const process = await client(
      `lab.ready(); await lab.finishing; return { metrics: { gapMs: Number.NaN }, failures: [], series: [] };`,
    );
    await process.ready(TIMEOUT_MS);
    await expect(process.finish()).rejects.toThrow(/gapMs/);
  });
});

describe("a message", () => {
  it("is JSON of a known type, whole", () => {
    expect(parseMessage('{"type":"ready"}')).toEqual({ type: "ready" });
    for (const line of ["", "ready", "{}", '{"type":"view","metrics":{}}', '{"type":"ready"']) {
      expect(parseMessage(line), line).toBeUndefined();
    }
  });
});
