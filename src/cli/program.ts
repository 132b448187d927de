// The whole command line as one tree of commander's: what main.ts runs, and what completions, the man page and the
// checks of documents are made from.

import { Command } from "commander";
import { version } from "../base/version.ts";
import { commandsFor } from "./commands.ts";

/** With the commands that `words` (of the command line, the program's name left out) ask for; all where none is named. */
export async function programFor(words: readonly string[]): Promise<Command> {
  const program = new Command("deltavee")
    .description("Live migration of running virtual machines over slow links, by delta compression.")
    .version(version)
    .showHelpAfterError("(deltavee --help shows what there is)");
  for (const command of await commandsFor(words)) program.addCommand(command);
  for (const command of withAllBelow(program)) {
    command.exitOverride().configureOutput({ outputError: (text, write) => write(text) });
  }
  return program;
}

/** The commands of commands, too. */
export function withAllBelow(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withAllBelow)];
}
