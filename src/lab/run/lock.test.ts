import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { takeLock } from "./lock.ts";

/** Linux has none as high. */
const NO_PROCESS = 2 ** 22 + 1;

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-"));
  path = join(folder, "lab/lock");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("a lock names its owner, and is gone when it is released", () => {
  const lock = takeLock(path);
  expect(readFileSync(path, "utf8")).toBe(`${process.pid}\n`);
  lock.release();
  lock.release();
  expect(existsSync(path)).toBe(false);
});

test("while its owner lives nobody else gets it, and is told whose it is", () => {
  takeLock(path, process.ppid);
  expect(() => takeLock(path)).toThrow(`in use by process ${process.ppid}`);
  expect(readFileSync(path, "utf8")).toBe(`${process.ppid}\n`);
});

test.each([`${NO_PROCESS}\n`, "", "nonsense"])("one that was left behind is taken over: %j", (left) => {
  takeLock(path).release();
  writeFileSync(path, left);
  takeLock(path);
  expect(readFileSync(path, "utf8")).toBe(`${process.pid}\n`);
});

test("one that is being taken over by somebody is left to him", () => {
  takeLock(path).release();
  writeFileSync(path, `${NO_PROCESS}\n`);
  takeLock(`${path}.after-${NO_PROCESS}`, process.ppid);
  expect(() => takeLock(path)).toThrow(`in use by process ${process.ppid}`);
  expect(readFileSync(path, "utf8")).toBe(`${NO_PROCESS}\n`);
});

test("a take-over that was cut short is taken over, and nothing is left of it", () => {
  takeLock(path).release();
  writeFileSync(path, `${NO_PROCESS}\n`);
  writeFileSync(`${path}.after-${NO_PROCESS}`, `${NO_PROCESS + 1}\n`);
  takeLock(path);
  expect(readdirSync(dirname(path))).toEqual(["lock"]);
});

test("one that somebody else has taken over is not released", () => {
  const lock = takeLock(path);
  writeFileSync(path, `${process.ppid}\n`);
  lock.release();
  expect(existsSync(path)).toBe(true);
});
