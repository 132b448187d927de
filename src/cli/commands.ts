// The commands there are, each loaded only when it is needed: a migration does not wait for the parts of the demo.

import type { Command } from "commander";
import { UsageError } from "../base/errors.ts";

/** Speaks of all others. */
const COMPLETION = "completion";

/** In the order in which help lists them. */
const COMMANDS: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ["migrate", async () => (await import("./migrate.ts")).migrateCommand()],
  ["receive", async () => (await import("./receive.ts")).receiveCommand()],
  ["serve", async () => (await import("./serve.ts")).serveCommand()],
  ["evacuate", async () => (await import("./evacuate.ts")).evacuateCommand()],
  ["service", async () => (await import("./service.ts")).serviceCommand()],
  ["config", async () => (await import("./config.ts")).configCommand()],
  ["proxy", async () => (await import("./proxy.ts")).proxyCommand()],
  ["plan", async () => (await import("./plan.ts")).planCommand()],
  ["status", async () => (await import("./status.ts")).statusCommand()],
  ["recover", async () => (await import("./recover.ts")).recoverCommand()],
  ["doctor", async () => (await import("./doctor.ts")).doctorCommand()],
  ["pair", async () => (await import("./pair.ts")).pairCommand()],
  ["relay", async () => (await import("./relay.ts")).relayCommand()],
  ["report", async () => (await import("./report.ts")).reportCommand()],
  ["trace", async () => (await import("./trace.ts")).traceCommand()],
  ["demo", async () => (await import("./demo.ts")).demoCommand()],
  [COMPLETION, async () => (await import("./completion.ts")).completionCommand()],
  ["lab", async () => (await import("./lab.ts")).labCommand()],
]);

/**
 * The command that `words` (of the command line, the program's name left out) ask for. All of them where none is
 * named, and for completion: help, and an error about a command that there is not, speak of every one.
 */
export async function commandsFor(words: readonly string[]): Promise<Command[]> {
  // No option of the program itself takes a value, so the first word that is none names the command.
  const name = words.find((word) => !word.startsWith("-")) ?? "";
  const named = COMMANDS.get(name);
  const load = named === undefined || name === COMPLETION ? [...COMMANDS.values()] : [named];
  const commands = await Promise.all(load.map((each) => each()));
  for (const command of commands) nameWhatIsWrong(command);
  return commands;
}

/** Whoever parses a value does not know what it is for: what is wrong with one is said with the option's name. */
function nameWhatIsWrong(command: Command): void {
  for (const given of [...command.options, ...command.registeredArguments]) {
    const { parseArg } = given;
    if (parseArg === undefined) continue;
    const name = "flags" in given ? given.flags : given.name();
    given.argParser((text: string, before: unknown) => {
      try {
        return parseArg(text, before);
      } catch (thrown) {
        if (!(thrown instanceof UsageError)) throw thrown;
        throw new UsageError(`${name}: ${thrown.message}`, { cause: thrown });
      }
    });
  }
  for (const below of command.commands) nameWhatIsWrong(below);
}
