// Which commands are loaded for which command line.

import { Command } from "commander";
import { expect, test } from "vitest";
import { commandsFor } from "./commands.ts";

const namesFor = async (...words: string[]) => (await commandsFor(words)).map((command) => command.name());
const ALL = [
  "migrate",
  "receive",
  "serve",
  "evacuate",
  "service",
  "config",
  "proxy",
  "plan",
  "status",
  "recover",
  "doctor",
  "pair",
  "relay",
  "report",
  "trace",
  "demo",
  "completion",
  "lab",
];

test("only the command that runs is loaded", async () => {
  const alone = ALL.filter((name) => name !== "completion");
  for (const name of alone) expect(await namesFor(name, "--help")).toEqual([name]);
  // As a value of an option a command's name means nothing.
  expect(await namesFor("migrate", "--qmp", "relay")).toEqual(["migrate"]);
});

test("help, completion and unknown commands know of every command", async () => {
  for (const words of [[], ["--help"], ["completion", "bash"], ["help", "migrate"], ["migrat"], ["-V"]]) {
    expect(await namesFor(...words)).toEqual(ALL);
  }
});

test.each([
  [["migrate", "--max-downtime", "soon"], "--max-downtime <duration>: "],
  [["migrate", "--on-stall", "pray"], "--on-stall <policy>: "],
  [["receive", "--listen", "nowhere"], "--listen <address>: "],
  [["trace", "record", "--to", "nowhere"], "--to <address>: "],
])("a value that cannot be read is refused by the name of its option: %j", async (words, name) => {
  const program = new Command().exitOverride();
  for (const command of await commandsFor(words)) program.addCommand(command);
  const parsed = program.parseAsync(words, { from: "user" });
  await expect(parsed).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining(name) });
});

test.each([["--tls-dir"], ["--keys-dir"]])("plain text and %s are not asked for together", async (option) => {
  const words = ["receive", "--listen", "127.0.0.1:0", "--qmp", "/nowhere/vm.qmp", "--quiet"];
  const [receive] = await commandsFor(words);
  receive!.exitOverride().configureOutput({ writeErr: () => {} });
  const both = [...words.slice(1), "--insecure-plaintext", option, "/nowhere"];
  await expect(receive!.parseAsync(both, { from: "user" })).rejects.toMatchObject({
    code: "commander.conflictingOption",
  });
});
