// `deltavee status`: the migrations that this host knows of. For those under way, how far they are; for those whose
// process has died, where the guest is and what to do. Asks, and changes nothing.

import { Command } from "commander";
import { formatBytes, formatBytesPerSecond } from "../base/units.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { isUnderWay, type JournalEntry, knownMigrations } from "../state/journal.ts";
import { STATE_DIR_HELP } from "../state/keep.ts";
import { viewQemu } from "../state/qemu-view.ts";
import { defaultStateFolder, StateFolder } from "../state/state-folder.ts";
import { type Finding, judge } from "../state/whereabouts.ts";
import { EXIT_DECIDE } from "./failure.ts";

interface Options {
  stateDir?: string;
  json?: true;
}

const HELP = `
A migration is known by the state file that "deltavee migrate" and "deltavee receive" keep while they work. Where
one of them was killed, this asks its QEMU, and says where the guest is as far as this host can know.

Exit codes: 0 all is well, 4 there is a migration to recover (see deltavee recover), 1 failed, 2 wrong usage.

Examples:
  What goes on here:
    deltavee status
  For a program:
    deltavee status --json
`;

export function statusCommand(): Command {
  return new Command("status")
    .description("the migrations on this host: how far they are, or where the guest is and what to do")
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--json", "print what is known as JSON")
    .addHelpText("after", HELP)
    .action(status);
}

interface Known {
  entry: JournalEntry;
  /** Undefined: under way. */
  finding: Finding | undefined;
}

async function status(options: Options): Promise<void> {
  const folder = StateFolder.find(options.stateDir ?? defaultStateFolder());
  const { entries, ignored } = knownMigrations(folder);
  const known: Known[] = await Promise.all(
    entries.map(async (entry) => ({
      entry,
      finding: isUnderWay(entry) ? undefined : judge(entry, await viewQemu(parseQmpAddress(entry.qmp))),
    })),
  );
  if (options.json) process.stdout.write(`${JSON.stringify({ migrations: known.map(asJson), ignored })}\n`);
  else process.stdout.write(asText(known));
  if (!options.json) for (const file of ignored) process.stderr.write(`deltavee: ignored ${file}\n`);
  if (known.some(({ finding }) => finding !== undefined)) process.exitCode = EXIT_DECIDE;
}

function asJson({ entry, finding }: Known): object {
  const { version: _version, settings: _settings, process: owner, ...shown } = entry;
  const { pid } = owner;
  if (finding === undefined) return { ...shown, pid, underWay: true };
  const { vm, explanation, advice } = finding;
  return { ...shown, pid, underWay: false, vm, explanation, advice };
}

function asText(known: readonly Known[]): string {
  if (known.length === 0) return "No migration is known on this host.\n";
  return known.map((each) => `${describeMigration(each.entry)}\n${details(each)}`).join("\n");
}

export function describeMigration({ session, side, mode, qmp, peer }: JournalEntry): string {
  const towards = side === "source" ? `${qmp} to ${peer}` : `from ${peer} to ${qmp}`;
  return `${session}  ${side}, ${mode}: ${towards}`;
}

function details({ entry, finding }: Known): string {
  const { phase, phaseAt, process: owner, endedBecause } = entry;
  if (finding === undefined) {
    return `  under way (process ${owner.pid}): ${phase} since ${phaseAt}${progressText(entry)}\n`;
  }
  const how = endedBecause === undefined ? `process ${owner.pid} has died` : `it has ended: ${endedBecause}`;
  return [
    `  ${how}, in phase ${phase} since ${phaseAt}`,
    ...findingLines(finding).map((line) => `  ${line}`),
    "",
  ].join("\n");
}

function findingLines({ vm, explanation, advice }: Finding): string[] {
  return [`the VM is: ${vm}`, `  ${explanation}.`, `  ${advice}.`];
}

function progressText({ progress }: JournalEntry): string {
  if (progress === undefined) return "";
  const { iteration, remainingBytes, wireBytes, linkBytesPerSecond } = progress;
  return [
    "",
    ...(iteration === undefined ? [] : [`iteration ${iteration}`]),
    ...(remainingBytes === undefined ? [] : [`${formatBytes(remainingBytes)} left`]),
    `${formatBytes(wireBytes)} sent, ${formatBytesPerSecond(linkBytesPerSecond)}`,
  ].join(", ");
}
