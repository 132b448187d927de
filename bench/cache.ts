// `npm run bench:cache`: every policy of the page cache over page traces, of guests that are made up and, with
// --traces, of real ones. --record makes those: QEMU guests under load, migrated to nowhere.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { toError } from "../src/base/errors.ts";
import { formatBytesPerSecond } from "../src/base/units.ts";
import { slotsWithin } from "../src/memory/page-directory.ts";
import { POLICIES } from "../src/memory/policy/all.ts";
import type { PolicyKind } from "../src/memory/policy/policy.ts";
import { replaceSection } from "../src/report/section.ts";
import { loadTrace } from "../src/trace/file.ts";
import { type PageTrace, PageTraceBuilder } from "../src/trace/page-trace.ts";
import { replay } from "../src/trace/replay.ts";
import { linuxGuest } from "../test/support/linux-guest.ts";
import { findQemus } from "../test/support/qemu-binaries.ts";
import { GUEST_KERNEL, type QemuOptions, type QemuVm, startQemu } from "../test/support/qemu-vm.ts";
import { QUIET_GUEST, type SyntheticGuest, synthesize } from "../test/support/synthetic-trace.ts";
import { nodeGuest } from "./node-guest.ts";
import { recordTrace } from "./record-trace.ts";
import { markdown, plainText, type Table } from "./table.ts";

/** Limits of the cache, of the guest's memory. */
const CACHE_SHARES = [1 / 16, 1 / 8, 1 / 4, 1 / 2];
const COLUMNS: readonly (PolicyKind | "optimal")[] = [...POLICIES, "optimal"];

const SYNTHETIC: Readonly<Record<string, Partial<SyntheticGuest>>> = {
  "synthetic: uniform": { uniformWrites: 12_000 },
  "synthetic: hot and cold": { hotPages: 4000, uniformWrites: 3000 },
  "synthetic: much hot": { hotPages: 10_000, uniformWrites: 3000 },
  "synthetic: phases": { hotPages: 4000, uniformWrites: 1000, phaseIterations: 5 },
  "synthetic: sweep": { sweptPages: 8000, uniformWrites: 500 },
  "synthetic: sweep and hot": { sweptPages: 6000, hotPages: 3000, uniformWrites: 1000 },
};

interface RealGuest {
  readonly name: string;
  readonly qemu: string;
  readonly memoryMiB: number;
  readonly bytesPerSecond: number;
  boot(folder: string): Pick<QemuOptions, "kernel" | "initrd" | "append"> | undefined;
}

/** 100 and 200 Mbit/s, at which none of these guests converges for a while. */
const [SLOW, FASTER] = [12_500_000, 25_000_000];

const REAL: readonly RealGuest[] = [
  {
    name: "bare-uniform",
    qemu: "7.2",
    memoryMiB: 256,
    bytesPerSecond: SLOW,
    boot: () => ({ kernel: GUEST_KERNEL, append: "ws=131072 rate=4000 pattern=sparse words=8 fill=random" }),
  },
  {
    name: "linux-uniform",
    qemu: "10.0",
    memoryMiB: 512,
    bytesPerSecond: SLOW,
    boot: () => linuxGuest("ws=262144 rate=3000 pattern=sparse words=8 fill=random"),
  },
  {
    name: "linux-hot",
    qemu: "10.0",
    memoryMiB: 512,
    bytesPerSecond: FASTER,
    boot: () => linuxGuest("ws=196608 rate=6000 pattern=hot hot=6000 words=8 fill=random"),
  },
  {
    name: "linux-text",
    qemu: "10.0",
    memoryMiB: 512,
    bytesPerSecond: SLOW,
    boot: () => linuxGuest("ws=131072 rate=1500 pattern=text fill=text"),
  },
  { name: "node-slow", qemu: "7.2", memoryMiB: 768, bytesPerSecond: SLOW, boot: nodeGuest },
  { name: "node", qemu: "10.0", memoryMiB: 768, bytesPerSecond: FASTER, boot: nodeGuest },
];
const ITERATIONS = 16;
const RECORD_LIMIT_MS = 90_000;
const READY_TIMEOUT_MS = 120_000;
const WARM_UP_MS = 3000;
const SUFFIX = ".trace";

interface Options {
  record?: string;
  only?: string;
  traces?: string;
  json?: string;
  markdown?: string;
}

const program = new Command("bench:cache")
  .description("Policies of the page cache over page traces.")
  .option("--record <folder>", "record traces of real guests into the folder, and nothing else (needs QEMU)")
  .option("--only <name>", `of the real guests only this one: ${REAL.map(({ name }) => name).join(", ")}`)
  .option("--traces <folder>", "also replay the traces (*.trace) in this folder")
  .option("--json <file>", "append each result, one JSON object a line")
  .option("--markdown <file>", "write the tables into their section of this file");

const options = program.parse().opts<Options>();
if (options.record !== undefined) await recordAll(options.record, options.only);
else await replayAll(options);

async function recordAll(folder: string, only: string | undefined): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const qemus = findQemus();
  for (const guest of REAL) {
    if (only !== undefined && guest.name !== only) continue;
    const binary = qemus.get(guest.qemu);
    const boot = guest.boot(folder);
    if (binary === undefined || boot === undefined) {
      console.log(`${guest.name}: left out, it needs QEMU ${guest.qemu} and its guest`);
      continue;
    }
    let vm: QemuVm | undefined;
    try {
      vm = await startQemu({ binary, ...boot, memoryMiB: guest.memoryMiB });
      await vm.waitForReady(READY_TIMEOUT_MS);
      await sleep(WARM_UP_MS);
      const iterations = await recordTrace(vm, {
        bytesPerSecond: guest.bytesPerSecond,
        iterations: ITERATIONS,
        limitMs: RECORD_LIMIT_MS,
        file: join(folder, guest.name + SUFFIX),
      });
      const rate = formatBytesPerSecond(guest.bytesPerSecond);
      console.log(
        `${guest.name}: QEMU ${guest.qemu}, ${guest.memoryMiB} MiB, ${rate}, ${iterations} iterations`,
      );
    } catch (thrown) {
      console.error(`${guest.name}: ${toError(thrown).message}`);
      process.exitCode = 1;
    } finally {
      await vm?.stop();
    }
  }
}

async function replayAll({ traces: folder, json, markdown: file }: Options): Promise<void> {
  const traces: PageTrace[] = [];
  if (folder !== undefined) {
    for (const name of readdirSync(folder).sort()) {
      if (name.endsWith(SUFFIX)) traces.push((await loadTrace(join(folder, name))).trace);
    }
  }
  for (const [name, guest] of Object.entries(SYNTHETIC)) {
    const builder = new PageTraceBuilder(name);
    synthesize({ ...QUIET_GUEST, ...guest }, builder);
    traces.push(builder.trace);
  }
  const hits: string[][] = [["hits, % of pages dirtied again", "cache", ...COLUMNS.map(nameOf)]];
  const wire: string[][] = [["bytes, % of those without a cache", "cache", ...COLUMNS.map(nameOf)]];
  const lines: string[] = [];
  /** Per kind of guest, of each trace and size: hits of each policy in proportion to the optimal one's. */
  const shares: Record<"real" | "synthetic", number[][]> = { real: [], synthetic: [] };
  for (const trace of traces) {
    const none = replay(trace, "optimal", 0);
    for (const share of CACHE_SHARES) {
      const limitBytes = Math.floor(trace.pageCount * trace.pageBytes * share);
      const results = COLUMNS.map((kind) => replay(trace, kind, slotsOf(trace, kind, limitBytes)));
      const name = [basename(trace.name, SUFFIX), `1/${1 / share}`];
      hits.push([...name, ...results.map((result) => percent(result.hits, result.pagesAgain))]);
      wire.push([...name, ...results.map(({ wireBytes }) => percent(wireBytes, none.wireBytes))]);
      const most = results.at(-1)!.hits;
      const kind = trace.name in SYNTHETIC ? "synthetic" : "real";
      if (most > 0) shares[kind].push(results.map((result) => (100 * result.hits) / most));
      for (const [i, result] of results.entries()) {
        lines.push(JSON.stringify({ trace: name[0], limitBytes, policy: nameOf(COLUMNS[i]!), ...result }));
      }
    }
  }
  const tables: Table[] = [summary(shares), hits, wire, costs(traces)];
  console.log(tables.map(plainText).join("\n\n"));
  if (json !== undefined) writeFileSync(json, `${lines.join("\n")}\n`, { flag: "a" });
  if (file !== undefined) {
    const text = existsSync(file) ? readFileSync(file, "utf8") : "";
    writeFileSync(file, replaceSection(text, "policies", tables.map(markdown).join("\n\n")));
  }
}

function nameOf(kind: PolicyKind | "optimal"): string {
  return kind === "optimal" ? kind : kind.name;
}

function slotsOf(trace: PageTrace, kind: PolicyKind | "optimal", limitBytes: number): number {
  if (kind === "optimal") return Math.floor(limitBytes / trace.pageBytes);
  return slotsWithin(limitBytes, trace.pageCount, trace.pageBytes, kind);
}

function percent(part: number, whole: number): string {
  return whole === 0 ? "-" : ((100 * part) / whole).toFixed(1);
}

/** How near each policy comes to the best there could be, on average and at worst, over all traces and sizes. */
function summary(shares: Readonly<Record<string, number[][]>>): Table {
  const rows: string[][] = [["hits, % of those of optimal", ...POLICIES.map(nameOf)]];
  for (const [kind, all] of Object.entries(shares)) {
    if (all.length === 0) continue;
    const columns = POLICIES.map((_, i) => all.map((row) => row[i]!));
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    rows.push([`${kind} guests, mean`, ...columns.map((values) => mean(values).toFixed(1))]);
    rows.push([`${kind} guests, worst`, ...columns.map((values) => Math.min(...values).toFixed(1))]);
  }
  return rows;
}

/** What each policy takes: bookkeeping, and time for each page of all traces, the replay's own included. */
function costs(traces: readonly PageTrace[]): Table {
  const rows: string[][] = [["policy", "bytes a slot", "bytes a page of the guest", "ns a page, replayed"]];
  for (const kind of POLICIES) {
    let ns = Number.POSITIVE_INFINITY;
    for (let run = 0; run < 3; run++) ns = Math.min(ns, nsPerRecord(traces, kind));
    rows.push([kind.name, String(kind.bytesPerSlot), String(kind.bytesPerPage), ns.toFixed(0)]);
  }
  return rows;
}

function nsPerRecord(traces: readonly PageTrace[], kind: PolicyKind): number {
  const startMs = performance.now();
  let records = 0;
  for (const trace of traces) {
    replay(trace, kind, trace.pageCount >> 3);
    records += trace.pages.length;
  }
  return ((performance.now() - startMs) * 1e6) / records;
}
