// `npm run soak`: what must stay as it is in the long run is watched while it runs. Each part can be left out (0):
//   npm run soak -- --v86 200 --qemu 50 --peers 4320 [--minutes N] [--seed N]
// --minutes: no move is begun after so long; what was made till then is what is reported. With UPDATE_RELIABILITY=1 in the
// environment the result goes into docs/reliability.md.

import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { documentedTable } from "../support/fault-table.ts";
import { tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { type Measure, TREND_HEAD, trendOf, trendRow } from "./measure.ts";
import { moveQemu } from "./moves-qemu.ts";
import { moveV86 } from "./moves-v86.ts";
import { soakReceive } from "./receive.ts";

const { values } = parseArgs({
  options: {
    v86: { type: "string", default: "200" },
    qemu: { type: "string", default: "50" },
    peers: { type: "string", default: "4320" },
    minutes: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const rows: string[] = [];
const failures: string[] = [];
const folder = tempFolder();
// Temporary files of this process and of those that it starts, and nobody else's.
const files = `${folder.path}/tmp`;
mkdirSync(files);
process.env.TMPDIR = files;

try {
  const qemu = findQemus().get("10.0");
  const [v86Moves, qemuMoves, peers] = [values.v86, values.qemu, values.peers].map(Number) as [
    number,
    number,
    number,
  ];
  if (v86Moves > 0) {
    const measures = await moveV86(v86Moves, files, said("v86", "moves"), deadline());
    report("embedded VM: moves", v86Moves, measures, measures.length);
  }
  if (qemuMoves > 0 && qemu !== undefined) {
    const measures = await moveQemu(qemu, qemuMoves, files, said("QEMU", "moves"), deadline());
    report(`QEMU ${qemu.name}, tunnel and direct by turns: moves`, qemuMoves, measures, measures.length);
  }
  if (qemu === undefined) console.log("soak: no QEMU 10.0 here: its moves and `receive` are left out");
  if (peers > 0 && qemu !== undefined) {
    const soak = await soakReceive(qemu, peers, Number(values.seed), files, said("receive", "peers"));
    console.log(soak.kinds);
    console.log(`receive: ${soak.descriptorsMax} descriptors at most, ${soak.notices} notices`);
    report("`deltavee receive`: peers that come and go", peers, soak.measures, peers);
  }
} finally {
  folder.remove();
}
console.log([TREND_HEAD, ...rows].join("\n"));
documentedTable(
  "soak",
  [TREND_HEAD, ...merged(documentedTable("soak").split("\n").slice(2), rows)].join("\n"),
);
for (const failure of failures) console.error(`soak: GREW: ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;

/** Rows that were there before stay, of parts that were left out this time. */
function merged(before: readonly string[], now: readonly string[]): string[] {
  const part = (row: string) => row.split(": ")[0];
  return [...before.filter((row) => !now.some((other) => part(other) === part(row))), ...now].sort();
}

function report(what: string, wanted: number, measures: readonly Measure[], done: number): void {
  const count = done === wanted ? `${done}` : `${done} (of ${wanted}: the time was over)`;
  const trend = trendOf(measures);
  rows.push(trendRow(`${what}: ${count}`, trend));
  failures.push(...trend.grown.map((name) => `${what}: ${name}`));
}

function said(who: string, what: string): (count: number) => void {
  return (count) => console.log(`soak: ${who}: ${count} ${what}`);
}

function deadline(): () => boolean {
  if (values.minutes === undefined) return () => true;
  const endMs = performance.now() + Number(values.minutes) * 60_000;
  return () => performance.now() < endMs;
}
