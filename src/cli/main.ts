#!/usr/bin/env node
// The command line: one file per command, this one only runs them and turns errors into words and exit codes
// (failure.ts).

import { Command, CommanderError } from "commander";
import { toError } from "../base/errors.ts";
import { version } from "../base/version.ts";
import { commandsFor } from "./commands.ts";
import { EXIT_USAGE, exitCodeOf, failureText } from "./failure.ts";

// Whoever reads what is printed may go away, a pager or a terminal: no reason to end in the middle of a migration.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {});

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

function report(error: Error): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  process.stderr.write(`${failureText(error)}\n`);
  return exitCodeOf(error);
}
