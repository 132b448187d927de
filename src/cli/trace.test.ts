import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { QUIET_GUEST, synthesize } from "../../test/support/synthetic-trace.ts";
import { PageClass } from "../trace/format.ts";
import { TraceWriter } from "../trace/writer.ts";
import { traceCommand } from "./trace.ts";

const folder = mkdtempSync(join(tmpdir(), "deltavee-trace-"));
const path = join(folder, "vm.trace");
const withContents = join(folder, "contents.trace");

beforeAll(() => {
  write(path, false, (writer) =>
    synthesize({ ...QUIET_GUEST, pageCount: 2048, zeroPages: 512, uniformWrites: 500 }, writer),
  );
  write(withContents, true, (writer) => {
    writer.ramBlocks([{ idstr: "pc.ram", pageCount: 1 }], 4096);
    writer.codec("xbzrle");
    const page = new Uint8Array(4096).fill(1);
    writer.observe(0, 0, 0, PageClass.RAW, 0, page, 0);
    page[100] = 2;
    writer.observe(0, 0, 1, PageClass.DELTA, 4, page, 0);
    page.fill(3);
    writer.observe(0, 0, 2, PageClass.OVERFLOW, 0, page, 0);
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(file: string, contents: boolean, calls: (writer: TraceWriter) => void): void {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents });
  calls(writer);
  writer.end();
  writeFileSync(file, Buffer.concat(chunks));
}

async function run(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  const [stdout, stderr]: [string[], string[]] = [[], []];
  const spies = [
    vi.spyOn(process.stdout, "write").mockImplementation((text) => stdout.push(String(text)) > 0),
    vi.spyOn(process.stderr, "write").mockImplementation((text) => stderr.push(String(text)) > 0),
  ];
  try {
    await traceCommand().exitOverride().parseAsync(args, { from: "user" });
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return { stdout: stdout.join(""), stderr: stderr.join("") };
}

test("A replay prints a line for each cache size and policy, with none above them", async () => {
  const { stdout, stderr } = await run(
    "replay",
    path,
    "--policy",
    "history,optimal",
    "--cache-size",
    "1MiB,9MiB",
  );
  expect(stderr).toBe("");
  expect(stdout).toMatch(/^.*vm\.trace: \d+ page records, 21 iterations\ncache +policy +slots +hits/);
  expect([...stdout.matchAll(/(none|history|optimal) +(\d+)/g)].map((match) => match[1])).toEqual([
    "none",
    "history",
    "optimal",
    "history",
    "optimal",
  ]);
  // A cache with room for every page finds every page that comes again.
  expect(stdout).toMatch(/history +2048 +100\.0 %/);
});

test("Without options every policy is run with three sizes", async () => {
  const { stdout } = await run("replay", path, "--json");
  const rows = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { policy: string; cacheBytesMax: number; hits: number });
  expect(rows.length).toBe(1 + 3 * 9);
  expect(new Set(rows.map(({ cacheBytesMax }) => cacheBytesMax)).size).toBe(4);
  const best = rows.filter(({ policy }) => policy === "optimal").map(({ hits }) => hits);
  expect(best).toEqual([...best].sort((a, b) => a - b));
});

test("Codecs are run over the contents, where the trace has them", async () => {
  const { stdout } = await run("replay", withContents, "--policy", "history", "--codec", "all");
  // Deltas, their bytes, bytes a delta, overflows. One changed byte: a mask of lines, one of words, the new word.
  expect(stdout).toMatch(/^word-mask +1 +17 B +17\.0 +1$/m);
  // Two bytes that say how long the delta is; 100 equal, 1 changed, its new value.
  expect(stdout).toMatch(/^xbzrle +1 +5 B +5\.0 +1$/m);
  // A page of equal bytes that all change alike is a run, or a repetition, and no overflow.
  expect(stdout).toMatch(/^xbrle +2 .* 0$/m);
  expect(stdout).toMatch(/^zstd-dictionary +2 .* 0$/m);
  await expect(run("replay", path, "--codec", "all")).rejects.toThrow(/vm\.trace has no contents/);
});

test("An interrupted trace is replayed as far as it goes, and that is said", async () => {
  const cut = join(folder, "cut.trace");
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents: false });
  synthesize({ ...QUIET_GUEST, pageCount: 100, zeroPages: 10 }, writer);
  writer.end();
  writeFileSync(cut, Buffer.concat(chunks).subarray(0, -1));
  const { stdout, stderr } = await run("replay", cut, "--policy", "direct");
  expect(stderr).toMatch(/^Note: Trace .*cut\.trace has no end/);
  expect(stdout).toMatch(/cut\.trace: 100 page records/);
});

test("A damaged trace is refused with its file and the offset", async () => {
  const bad = join(folder, "bad.trace");
  writeFileSync(bad, "DVTRACE\nnothing of the kind");
  await expect(run("replay", bad)).rejects.toMatchObject({
    code: "TRACE_INVALID",
    message: expect.stringMatching(/bad\.trace: offset 8: version/),
  });
});

test("Names that do not exist are usage errors that say which do", async () => {
  await expect(run("replay", path, "--policy", "lru")).rejects.toMatchObject({
    code: "USAGE",
    message:
      'No policy "lru": there are direct, lru-2way, lru-4way, lru-8way, arc, lru-8way+2nd, arc+2nd, history, optimal, and all',
  });
  await expect(run("replay", path, "--codec", "zip")).rejects.toMatchObject({ code: "USAGE" });
  await expect(run("replay", path, "--cache-size", "much")).rejects.toMatchObject({ code: "USAGE" });
});
