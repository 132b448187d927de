import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { createDefaultFolder, createOutputFolder } from "./output-folder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-output-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("The default name sorts by time, and of two that begin in one second each has its own", async () => {
  const now = new Date(2026, 0, 2, 3, 4, 5);
  const both = await Promise.all([createDefaultFolder(folder, now), createDefaultFolder(folder, now)]);
  expect(both.map(({ path }) => path).sort()).toEqual([
    join(folder, "deltavee-report-2026-01-02-030405"),
    join(folder, "deltavee-report-2026-01-02-030405-2"),
  ]);
  await both[0]!.discard();
  expect(existsSync(both[0]!.path)).toBe(false);
  expect(existsSync(both[1]!.path)).toBe(true);
  await expect(createDefaultFolder(join(folder, "not there"), now)).rejects.toThrow(/Cannot create .*ENOENT/);
});

test("A folder is made, with those above it, and says where things go in it", async () => {
  const path = join(folder, "a/b");
  const created = await createOutputFolder(path);
  expect(existsSync(path)).toBe(true);
  expect([created.reportPath, created.recordPath("delta")]).toEqual([
    join(path, "report.html"),
    join(path, "delta.ndjson"),
  ]);
});

test("What is there already is never written over", async () => {
  const path = join(folder, "used");
  mkdirSync(path);
  writeFileSync(join(path, "precious"), "");
  await expect(createOutputFolder(path)).rejects.toThrow(UsageError);
  await expect(createOutputFolder(join(path, "precious"))).rejects.toThrow(UsageError);
});

test("What is taken back leaves nothing of ours, and nothing else less", async () => {
  const fresh = await createOutputFolder(join(folder, "fresh"));
  writeFileSync(fresh.reportPath, "");
  await fresh.discard();
  expect(existsSync(fresh.path)).toBe(false);

  const path = join(folder, "empty");
  mkdirSync(path);
  const given = await createOutputFolder(path);
  writeFileSync(given.reportPath, "");
  await given.discard();
  expect(readdirSync(path)).toEqual([]);
});
