import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { summaryText } from "../report/summary.ts";
import { reportCommand } from "./report.ts";

let folder: string;
let standardPath: string;
let deltaPath: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-report-"));
  standardPath = join(folder, "standard.ndjson");
  deltaPath = join(folder, "delta.ndjson");
  for (const [method, path] of [
    ["standard", standardPath],
    ["delta", deltaPath],
  ] as const) {
    const lines: string[] = [];
    simulatedRecord(method, lines);
    writeFileSync(path, lines.join(""));
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

async function run(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const spies = [
    vi.spyOn(process.stdout, "write").mockImplementation((text) => stdout.push(String(text)) > 0),
    vi.spyOn(process.stderr, "write").mockImplementation((text) => stderr.push(String(text)) > 0),
  ];
  try {
    await reportCommand().exitOverride().parseAsync(args, { from: "user" });
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return { stdout: stdout.join(""), stderr: stderr.join("") };
}

test("One record is summed up as the migration itself did", async () => {
  expect(await run(deltaPath)).toEqual({ stdout: summaryText(simulatedRecord("delta")), stderr: "" });
});

test("Several records stand side by side, under the labels that the runs gave themselves", async () => {
  const { stdout } = await run(standardPath, deltaPath);
  expect(stdout).toMatch(/^ +made up: standard +made up: delta\n/);
});

test("Runs of the same label are told apart by their files", async () => {
  const copy = join(folder, "copy.ndjson");
  writeFileSync(copy, readFileSync(deltaPath));
  const { stdout } = await run(deltaPath, copy);
  expect(stdout).toMatch(/^ +made up: delta \(delta\.ndjson\) +made up: delta \(copy\.ndjson\)\n/);
});

test("--json gives the figures of every run, and nothing else", async () => {
  const { stdout } = await run("--json", standardPath, deltaPath);
  expect(JSON.parse(stdout)).toMatchObject([
    { label: "made up: standard", outcome: "completed" },
    { label: "made up: delta", outcome: "completed", method: "delta" },
  ]);
});

test("--html writes the page and says where", async () => {
  const path = join(folder, "report.html");
  const { stdout } = await run(standardPath, deltaPath, "--html", path);
  expect(readFileSync(path, "utf8")).toMatch(/^<!doctype html>/);
  expect(stdout).toContain(`Report: ${path}\n`);
});

test("A page that cannot be written and a record that is none are errors with a code", async () => {
  await expect(run(deltaPath, "--html", join(folder, "no", "such"))).rejects.toMatchObject({ code: "USAGE" });
  const other = join(folder, "other.txt");
  writeFileSync(other, "hello\nworld\n");
  await expect(run(other)).rejects.toMatchObject({ code: "RECORD_INVALID" });
});

test("A record that was cut off is drawn, and its reader is told", async () => {
  const path = join(folder, "cut.ndjson");
  const text = readFileSync(deltaPath, "utf8");
  writeFileSync(path, text.slice(0, text.length / 2));
  const { stdout, stderr } = await run(path);
  expect(stdout).toMatch(/^The record ends before the migration did/);
  expect(stderr).toMatch(/^Note: .*cut\.ndjson: the last line \(\d+\) was cut off/);
});
