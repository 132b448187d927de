// Which commands are loaded for which command line.

import { expect, test } from "vitest";
import { commandsFor } from "./commands.ts";

const namesFor = async (...words: string[]) => (await commandsFor(words)).map((command) => command.name());
const ALL = [
  "migrate",
  "receive",
  "plan",
  "status",
  "recover",
  "pair",
  "relay",
  "report",
  "trace",
  "demo",
  "lab",
];

test("only the command that runs is loaded", async () => {
  for (const name of ALL) expect(await namesFor(name, "--help")).toEqual([name]);
  // As a value of an option a command's name means nothing.
  expect(await namesFor("migrate", "--qmp", "relay")).toEqual(["migrate"]);
});

test("help and unknown commands know of every command", async () => {
  for (const words of [[], ["--help"], ["help", "migrate"], ["migrat"], ["-V"]]) {
    expect(await namesFor(...words)).toEqual(ALL);
  }
});
