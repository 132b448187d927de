// The commands there are, each loaded only when it is needed: a migration does not wait for the parts of the demo.

import type { Command } from "commander";

/** In the order in which help lists them. */
const COMMANDS: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ["migrate", async () => (await import("./migrate.ts")).migrateCommand()],
  ["receive", async () => (await import("./receive.ts")).receiveCommand()],
  ["plan", async () => (await import("./plan.ts")).planCommand()],
  ["status", async () => (await import("./status.ts")).statusCommand()],
  ["recover", async () => (await import("./recover.ts")).recoverCommand()],
  ["pair", async () => (await import("./pair.ts")).pairCommand()],
  ["relay", async () => (await import("./relay.ts")).relayCommand()],
  ["report", async () => (await import("./report.ts")).reportCommand()],
  ["trace", async () => (await import("./trace.ts")).traceCommand()],
  ["demo", async () => (await import("./demo.ts")).demoCommand()],
  ["lab", async () => (await import("./lab.ts")).labCommand()],
]);

/**
 * The command that `words` (of the command line, the program's name left out) ask for. All of them where none is
 * named: help, and an error about a command that there is not, speak of every one.
 */
export async function commandsFor(words: readonly string[]): Promise<Command[]> {
  // No option of the program itself takes a value, so the first word that is none names the command.
  const named = COMMANDS.get(words.find((word) => !word.startsWith("-")) ?? "");
  return Promise.all(named === undefined ? [...COMMANDS.values()].map((load) => load()) : [named()]);
}
