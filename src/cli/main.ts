#!/usr/bin/env node
// The command line: one file per command, this one only runs them and turns errors into words and exit codes
// (docs/exit-codes in README): 0 done, 1 failed, 2 usage, 3 given up since a promise could not be kept, 4 a person
// must decide, 5 refused, 130 cancelled by the operator.

import { Command, CommanderError } from "commander";
import { DeltaveeError, type ErrorCode, isGivenUp, toError, type VmWhere } from "../base/errors.ts";
import { version } from "../base/version.ts";
import { commandsFor } from "./commands.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_GIVEN_UP = 3;
const EXIT_CANCELLED = 130;
/** Those with an exit code of their own. */
const EXIT_CODES: Readonly<Partial<Record<ErrorCode, number>>> = {
  USAGE: EXIT_USAGE,
  DECISION_NEEDED: 4,
  RECOVERY_REFUSED: 5,
  CANCELLED: EXIT_CANCELLED,
};

/** What a person has to do where Deltavee must not decide: two running copies would be worse than none. */
const VM_ADVICE: Readonly<Partial<Record<VmWhere, string>>> = {
  unknown:
    "It may run at the destination, and Deltavee does not resume it at the source. Look at both (QMP " +
    "query-status), the destination first; only if it does not run there let it continue at the source (deltavee " +
    "recover --resume-here, or QMP cont).",
  "paused on destination":
    "It is complete there. Make sure that it does not run at the source, then let it continue (deltavee recover " +
    "--resume-here, or QMP cont).",
};

const program = new Command("deltavee")
  .description("Live migration of running virtual machines over slow links, by delta compression.")
  .version(version)
  .showHelpAfterError("(deltavee --help shows what there is)");

for (const command of await commandsFor(process.argv.slice(2))) program.addCommand(command);
for (const command of withAllBelow(program)) {
  command.exitOverride().configureOutput({ outputError: (text, write) => write(text) });
}

try {
  await program.parseAsync();
} catch (thrown) {
  process.exitCode = report(toError(thrown));
}

/** The commands of commands, too. */
function withAllBelow(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withAllBelow)];
}

/** Says what went wrong, why, and where the VM is. */
function report(error: Error): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  const lines = [`deltavee: ${error instanceof DeltaveeError ? `${error.code}: ` : ""}${error.message}`];
  for (
    let cause = error.cause;
    cause !== undefined;
    cause = cause instanceof Error ? cause.cause : undefined
  ) {
    lines.push(`  because: ${toError(cause).message}`);
  }
  if (error instanceof DeltaveeError && error.vm !== undefined) {
    // A finding of recover has told what to do already.
    const advice = error.code === "DECISION_NEEDED" ? undefined : VM_ADVICE[error.vm];
    lines.push(`  the VM is: ${error.vm}${advice === undefined ? "" : `\n  ${advice}`}`);
  }
  if (!(error instanceof DeltaveeError) && error.stack !== undefined) lines.push(error.stack);
  process.stderr.write(`${lines.join("\n")}\n`);
  if (!(error instanceof DeltaveeError)) return EXIT_FAILED;
  return EXIT_CODES[error.code] ?? (isGivenUp(error) ? EXIT_GIVEN_UP : EXIT_FAILED);
}
