// `deltavee trace`: what a migration did with each page, recorded and run again with other page caches and codecs.

import { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import { formatBytes, parseBytes } from "../base/units.ts";
import { slotsWithin } from "../memory/page-directory.ts";
import { POLICIES } from "../memory/policy/all.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import { CodecReplay, type ReplayCodec } from "../trace/codec-replay.ts";
import { loadTrace, readTrace } from "../trace/file.ts";
import type { PageTrace } from "../trace/page-trace.ts";
import { type ReplayResult, replay } from "../trace/replay.ts";
import { traceRecordCommand } from "./migrate.ts";
import { REPLAY_CODECS } from "./replay-codecs.ts";

interface ReplayOptions {
  policy?: readonly (PolicyKind | "optimal")[];
  cacheSize?: readonly number[];
  codec?: readonly ReplayCodec[];
  json?: true;
}

/** Of the guest's memory, where no sizes are asked for. */
const CACHE_SHARES_DEFAULT = [1 / 8, 1 / 4, 1 / 2];

const HELP = `
A page trace says of each page that a migration sent which it was, in which iteration, and how large its delta was.
Replaying it shows what a page cache of another size or policy would have found. Wire bytes are those of direct
mode, before any entropy coding. "optimal" knows the future: what no policy can beat. "none" is no cache at all.
`;

const REPLAY_HELP = `
Policies: ${POLICIES.map(({ name }) => name).join(", ")}, optimal. Codecs: ${REPLAY_CODECS.map(({ name }) => name).join(", ")}.

Examples:
  Which policy for a cache of an eighth, a quarter, a half of the guest's memory?
    deltavee trace replay vm.trace
  How large should the cache be?
    deltavee trace replay vm.trace --policy history,optimal --cache-size 64MiB,256MiB,1GiB
  Deltas of a trace that was recorded with its contents:
    deltavee trace replay vm.trace --codec all
`;

export function traceCommand(): Command {
  const replayCommand = new Command("replay")
    .description("run page cache policies and codecs over page traces")
    .argument("<trace...>", "page traces")
    .option("--policy <names>", "policies, separated by commas (default: all)", parsePolicies)
    .option(
      "--cache-size <sizes>",
      "limits of the page cache, separated by commas (default: shares of the guest's memory)",
      parseSizes,
    )
    .option("--codec <names>", "delta codecs to run, or all: needs a trace with contents", parseCodecs)
    .option("--json", "print the results as JSON, one object a line")
    .addHelpText("after", REPLAY_HELP)
    .action(replayTraces);
  return new Command("trace")
    .summary("record what a migration does with each page; replay it with other page caches and codecs")
    .description("Page traces of migrations: what policies of the page cache and codecs make of them.")
    .addHelpText("after", HELP)
    .addCommand(traceRecordCommand())
    .addCommand(replayCommand);
}

async function replayTraces(paths: string[], options: ReplayOptions): Promise<void> {
  for (const path of paths) {
    const { trace, notice } = await loadTrace(path);
    if (notice !== undefined) process.stderr.write(`Note: ${notice}\n`);
    const rows = replayAll(trace, options);
    if (options.json)
      for (const row of rows) process.stdout.write(`${JSON.stringify({ trace: path, ...row })}\n`);
    else process.stdout.write(policyTable(trace, rows));
    if (options.codec === undefined) continue;
    const codecs = new CodecReplay(path, options.codec);
    await readTrace(path, codecs);
    for (const result of codecs.results) {
      if (options.json) process.stdout.write(`${JSON.stringify({ trace: path, ...result })}\n`);
    }
    if (!options.json) process.stdout.write(codecTable(codecs));
  }
}

interface Row extends ReplayResult {
  readonly policy: string;
  readonly cacheBytesMax: number;
}

function replayAll(trace: PageTrace, options: ReplayOptions): Row[] {
  const guestBytes = trace.pageCount * trace.pageBytes;
  const sizes = options.cacheSize ?? CACHE_SHARES_DEFAULT.map((share) => Math.floor(guestBytes * share));
  const rows: Row[] = [{ policy: "none", cacheBytesMax: 0, ...replay(trace, "optimal", 0) }];
  for (const cacheBytesMax of sizes) {
    for (const kind of options.policy ?? parsePolicies("all")) {
      // The limit of foresight has no bookkeeping.
      const slotCount =
        kind === "optimal"
          ? Math.min(trace.pageCount, Math.floor(cacheBytesMax / trace.pageBytes))
          : slotsWithin(cacheBytesMax, trace.pageCount, trace.pageBytes, kind);
      const policy = kind === "optimal" ? kind : kind.name;
      rows.push({ policy, cacheBytesMax, ...replay(trace, kind, slotCount) });
    }
  }
  return rows;
}

function policyTable(trace: PageTrace, rows: readonly Row[]): string {
  const wireBytesOfNone = rows[0]!.wireBytes;
  const head = ["cache", "policy", "slots", "hits", "whole pages", "wire", "of none"];
  const cells = rows.map((row) => [
    formatBytes(row.cacheBytesMax),
    row.policy,
    String(row.slotCount),
    row.pagesAgain === 0 ? "-" : `${((100 * row.hits) / row.pagesAgain).toFixed(1)} %`,
    String(row.wholePages),
    formatBytes(row.wireBytes),
    `${((100 * row.wireBytes) / wireBytesOfNone).toFixed(1)} %`,
  ]);
  const pages = `${trace.pages.length} page records, ${trace.iterationStarts.length} iterations`;
  const estimated = Math.max(...rows.map(({ estimatedDeltas }) => estimatedDeltas));
  const note =
    estimated === 0
      ? ""
      : `Up to ${estimated} deltas are not known, since the cache of the migration itself had missed: taken for average.\n`;
  return `${trace.name}: ${pages}\n${aligned([head, ...cells])}${note}\n`;
}

function codecTable(codecs: CodecReplay): string {
  const head = ["codec", "deltas", "bytes", "bytes a delta", "overflows"];
  const cells = codecs.results.map(({ name, deltaPages, deltaBytes, overflowPages }) => [
    name,
    String(deltaPages),
    formatBytes(deltaBytes),
    deltaPages === 0 ? "-" : (deltaBytes / deltaPages).toFixed(1),
    String(overflowPages),
  ]);
  return `${aligned([head, ...cells])}\n`;
}

/** Columns side by side: names to the left, numbers to the right. */
function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd();
  return `${rows.map(line).join("\n")}\n`;
}

/** @throws UsageError */
function parsePolicies(text: string): readonly (PolicyKind | "optimal")[] {
  const all = [...POLICIES, "optimal" as const];
  return chosen(text, all, (kind) => (kind === "optimal" ? kind : kind.name), "policy");
}

/** @throws UsageError */
function parseCodecs(text: string): readonly ReplayCodec[] {
  return chosen(text, REPLAY_CODECS, ({ name }) => name, "codec");
}

function parseSizes(text: string): readonly number[] {
  return text.split(",").map(parseBytes);
}

function chosen<T>(text: string, all: readonly T[], nameOf: (one: T) => string, what: string): readonly T[] {
  if (text === "all") return all;
  return text.split(",").map((name) => {
    const one = all.find((each) => nameOf(each) === name);
    if (one === undefined) {
      throw new UsageError(`No ${what} "${name}": there are ${all.map(nameOf).join(", ")}, and all`);
    }
    return one;
  });
}
