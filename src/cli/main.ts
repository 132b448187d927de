#!/usr/bin/env node
// The command line: one file per command, this one only runs them and turns errors into words and exit codes
// (failure.ts).

import { CommanderError } from "commander";
import { toError } from "../base/errors.ts";
import { EXIT_USAGE, exitCodeOf, failureText } from "./failure.ts";
import { programFor } from "./program.ts";

// Whoever reads what is printed may go away, a pager or a terminal: no reason to end in the middle of a migration.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {});

try {
  const program = await programFor(process.argv.slice(2));
  await program.parseAsync();
} catch (thrown) {
  process.exitCode = report(toError(thrown));
}

function report(error: Error): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  process.stderr.write(`${failureText(error)}\n`);
  return exitCodeOf(error);
}
