import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createTrace, loadTrace } from "./file.ts";
import { PageClass } from "./format.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-trace-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

test("a trace of more than one chunk is written behind the caller's back and loaded again", async () => {
  const path = join(folder, "x.trace");
  const pageCount = 1000;
  const { writer, close } = await createTrace(path, { contents: true });
  writer.ramBlocks([{ idstr: "pc.ram", pageCount }], 4096);
  const content = new Uint8Array(4096).fill(7);
  for (let page = 0; page < pageCount; page++) writer.observe(0, page, 0, PageClass.RAW, 0, content, 0);
  expect(await close()).toBeUndefined();
  const { trace, notice } = await loadTrace(path);
  expect(notice).toBeUndefined();
  expect(trace.hasContents).toBe(true);
  expect([...trace.pages]).toEqual(Array.from({ length: pageCount }, (_, i) => i));
  expect(readFileSync(path).length).toBeGreaterThan(pageCount * 4096);
});

test("a file that holds something is not overwritten", async () => {
  const path = join(folder, "x.trace");
  writeFileSync(path, "precious");
  await expect(createTrace(path, { contents: false })).rejects.toMatchObject({ code: "USAGE" });
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("a disk that is full ends the trace, says so, and throws nothing", async () => {
  const { writer, close } = await createTrace("/dev/full", { contents: true });
  writer.ramBlocks([{ idstr: "pc.ram", pageCount: 1000 }], 4096);
  const content = new Uint8Array(4096);
  for (let page = 0; page < 1000; page++) writer.observe(0, page, 0, PageClass.RAW, 0, content, 0);
  expect(await close()).toMatch(/^The page trace \/dev\/full is not complete: /);
});

test("a disk that hangs does not make the queue grow without end", async () => {
  const { writer, close } = await createTrace(join(folder, "x.trace"), { contents: true });
  writer.ramBlocks([{ idstr: "pc.ram", pageCount: 1 }], 65536);
  const content = new Uint8Array(65536);
  // Nothing is written while this loop runs: to the queue the disk looks hung.
  for (let i = 0; i < 1200; i++) writer.observe(0, 0, 0, PageClass.RAW, 0, content, 0);
  expect(await close()).toMatch(/the disk does not keep up/);
});

test("a file that cannot be read is named", async () => {
  const path = join(folder, "nowhere.trace");
  await expect(loadTrace(path)).rejects.toMatchObject({
    code: "TRACE_INVALID",
    message: `Cannot read trace ${path}`,
  });
});
