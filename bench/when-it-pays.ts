// `npm run analysis`: when delta compression pays, from the planner's simulation of migrations and from what pages cost on
// this machine. Prints tables, or writes them into their section of docs/when-it-pays.md, with the plots beside it as SVG
// files. No root, no QEMU.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { Command } from "commander";
import { formatBytes, formatBytesPerSecond, formatMs } from "../src/base/units.ts";
import { readResults } from "../src/lab/report/results.ts";
import { payloadBytesPerSecond } from "../src/planner/link-model.ts";
import { METHODS, type MethodName } from "../src/planner/methods.ts";
import { type MigrationOutcome, simulateMigration } from "../src/planner/migration.ts";
import { standaloneSvg } from "../src/report/html/standalone.ts";
import { replaceSection } from "../src/report/section.ts";
import {
  type Content,
  type Costs,
  GUEST_MIB,
  guestOf,
  measureCosts,
  WORKING_SET_MIB,
} from "./when-it-pays/guests.ts";
import { plots } from "./when-it-pays/plots.ts";

const BYTES_PER_PAGE = [8, 64, 256, 1024, 2048, 4096] as const;
const LINKS_MBIT = [10, 50, 100, 300, 1000, 10_000] as const;
const COMPARED: readonly MethodName[] = ["vanilla", "xbzrle-full", "multifd-zstd", "direct", "tunnel"];
const DOWNTIME_MS_MAX = 300;
const ROUND_TRIP_MS = 1;
const RATE_DEFAULT = 5000;
const LINK_DEFAULT_MBIT = 100;
const CACHE_SHARES = [0.1, 0.25, 0.5, 0.75, 0.9, 1] as const;
/** Pages per second, and how finely a limit is searched for. */
const RATE_MAX = 1_000_000;
const SEARCH_RATIO = 1.03;

const program = new Command("analysis")
  .description("when delta compression pays, by simulation with costs measured on this machine")
  .option("--markdown <file>", "write the tables into their section of this file, and the plots beside it")
  .option("--results <folder>", "records of the lab, whose runs are points in the plots", "lab/results")
  .parse();
const { markdown: file, results: resultsFolder } = program.opts<{ markdown?: string; results: string }>();

const costs: Record<Content, Map<number, Costs>> = { random: measureAll("random"), text: measureAll("text") };
const text = [
  setting(),
  section("How many pages a second may be dirtied", `over ${LINK_DEFAULT_MBIT} Mbit/s`, convergenceTable),
  section("The best method", `${RATE_DEFAULT} pages/s dirtied`, bestTable),
  section("What a delta saves of each page", "bytes on the wire for a page that is sent again", sizeTable),
  section(
    "A cache that is too small",
    `${RATE_DEFAULT} pages/s, 64 bytes each, ${LINK_DEFAULT_MBIT} Mbit/s`,
    cacheTable,
  ),
].join("\n\n");
if (file === undefined) console.log(text);
else await writeInto(file);

async function writeInto(markdown: string): Promise<void> {
  const { results, notices } = existsSync(resultsFolder)
    ? await readResults(resultsFolder)
    : { results: [], notices: [`there are no records in ${resultsFolder}`] };
  for (const notice of notices) console.error(`analysis: ${notice}`);
  const made = plots({
    ...{ bytesPerPage: BYTES_PER_PAGE, linksMbit: LINKS_MBIT, methods: COMPARED, costs, simulate, results },
    dirtyPagesPerSecond: RATE_DEFAULT,
  });
  const folder = join(dirname(markdown), "plots");
  mkdirSync(folder, { recursive: true });
  const pictures = Object.entries(made).map(([name, figure]) => {
    writeFileSync(join(folder, `${name}.svg`), standaloneSvg(figure));
    return `![${figure.title}](plots/${name}.svg)\n\n${figure.says}`;
  });
  const before = existsSync(markdown) ? readFileSync(markdown, "utf8") : "";
  const content = [text, "### In pictures", ...pictures].join("\n\n");
  writeFileSync(markdown, replaceSection(before, "analysis", content));
}

function measureAll(content: Content): Map<number, Costs> {
  return new Map(BYTES_PER_PAGE.map((bytes) => [bytes, measureCosts(content, bytes)]));
}

function setting(): string {
  return [
    "Made by `npm run analysis -- --markdown docs/when-it-pays.md`:",
    `- a guest of ${GUEST_MIB} MiB that writes to ${WORKING_SET_MIB} MiB of it; goal ${DOWNTIME_MS_MAX} ms, round trip ${ROUND_TRIP_MS} ms;`,
    "- migrations simulated by the planner; what pages cost in bytes and time was measured with our codecs on",
    `  ${cpus().length} × ${cpus()[0]?.model.trim()}, Node ${process.versions.node};`,
    "- *text*: content that coders make much smaller; *random*: content that they cannot make smaller.",
  ].join("\n");
}

function section(title: string, of: string, table: (content: Content) => string[][]): string {
  const tables = (["random", "text"] as const).map(
    (content) => `*${content}*, ${of}\n\n${asMarkdown(table(content))}`,
  );
  return `### ${title}\n\n${tables.join("\n\n")}`;
}

function asMarkdown([head, ...rows]: string[][]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head!), `|${head!.map(() => "---|").join("")}`, ...rows.map(line)].join("\n");
}

function simulate(
  content: Content,
  bytesPerPage: number,
  method: MethodName,
  pagesPerSecond: number,
  mbit: number,
  cacheBytes?: number,
): MigrationOutcome {
  const link = { bytesPerSecond: mbit * 125_000, roundTripMs: ROUND_TRIP_MS, lossShare: 0 };
  const guest = guestOf(costs[content].get(bytesPerPage)!, pagesPerSecond);
  const options = { guest, method, roundTripMs: ROUND_TRIP_MS, downtimeMsMax: DOWNTIME_MS_MAX };
  return simulateMigration(
    cacheBytes === undefined ? options : { ...options, cacheBytes },
    payloadBytesPerSecond(link),
  );
}

/** The highest rate at which it still converges, to within SEARCH_RATIO. */
function rateMax(content: Content, bytesPerPage: number, method: MethodName): number {
  const converges = (rate: number) =>
    simulate(content, bytesPerPage, method, rate, LINK_DEFAULT_MBIT).converges;
  if (converges(RATE_MAX)) return RATE_MAX;
  let [low, high] = [1, RATE_MAX];
  while (high / low > SEARCH_RATIO) {
    const middle = Math.sqrt(low * high);
    if (converges(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function convergenceTable(content: Content): string[][] {
  const rate = (value: number) => (value >= RATE_MAX ? `over ${count(RATE_MAX)}` : count(value));
  return [
    ["bytes changed per page", ...COMPARED.map((method) => METHODS[method].title)],
    ...BYTES_PER_PAGE.map((bytes) => [
      String(bytes),
      ...COMPARED.map((method) => rate(rateMax(content, bytes, method))),
    ]),
  ];
}

/** Rounded to two figures: it is a model. */
function count(value: number): string {
  return Number(value.toPrecision(2)).toLocaleString("en-US");
}

function bestTable(content: Content): string[][] {
  return [
    ["bytes changed per page", ...LINKS_MBIT.map((mbit) => formatBytesPerSecond(mbit * 125_000))],
    ...BYTES_PER_PAGE.map((bytes) => [
      String(bytes),
      ...LINKS_MBIT.map((mbit) => bestCell(content, bytes, mbit)),
    ]),
  ];
}

function bestCell(content: Content, bytes: number, mbit: number): string {
  const outcomes = COMPARED.map((method) => ({
    method,
    outcome: simulate(content, bytes, method, RATE_DEFAULT, mbit),
  }));
  const converging = outcomes.filter(({ outcome }) => outcome.converges);
  if (converging.length === 0) return "none";
  const best = converging.reduce((a, b) => (b.outcome.totalMs < a.outcome.totalMs ? b : a));
  const vanilla = outcomes[0]!.outcome;
  const against = vanilla.converges ? `vanilla ${formatMs(vanilla.totalMs)}` : "vanilla never";
  return best.method === "vanilla"
    ? `vanilla ${formatMs(vanilla.totalMs)}`
    : `**${best.method}** ${formatMs(best.outcome.totalMs)}, ${against}`;
}

function sizeTable(content: Content): string[][] {
  return [
    [
      "bytes changed per page",
      "XBZRLE",
      "tunnel",
      "whole page, zstd 1",
      "CPU of a delta",
      "of zstd 1",
      "of zstd 9",
    ],
    ...BYTES_PER_PAGE.map((bytes) => {
      const { sizes, cpuMsPerPage } = costs[content].get(bytes)!;
      const microseconds = (ms: number) => `${(ms * 1000).toFixed(1)} µs`;
      return [
        String(bytes),
        ...[sizes.xbzrleBytes, sizes.tunnelBytes, sizes.wholeCodedBytes].map(formatBytes),
        ...[cpuMsPerPage.delta, cpuMsPerPage.fast, cpuMsPerPage.strong].map(microseconds),
      ];
    }),
  ];
}

function cacheTable(content: Content): string[][] {
  return [
    [
      "cache, of what is written to",
      ...(["direct", "tunnel"] as const).map((method) => METHODS[method].title),
    ],
    ...CACHE_SHARES.map((share) => [
      `${Math.round(share * 100)} %`,
      ...(["direct", "tunnel"] as const).map((method) => {
        const cacheBytes = share * WORKING_SET_MIB * 2 ** 20;
        const outcome = simulate(content, 64, method, RATE_DEFAULT, LINK_DEFAULT_MBIT, cacheBytes);
        return outcome.converges
          ? `${formatMs(outcome.totalMs)}, ${formatBytes(outcome.wireBytes)}`
          : "never";
      }),
    ]),
  ];
}
