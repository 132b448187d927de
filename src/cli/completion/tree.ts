// What shells complete, taken from commander's own tree: for each command its commands, its options, and what may
// follow one. Knows no shell.

import type { Command, Option } from "commander";

/** What follows an option, or stands as an argument. "other": something that only its user knows. */
export type Value = "file" | "folder" | "other" | readonly string[];

export interface OptionWords {
  /** "--max-downtime", "-V" */
  readonly words: readonly string[];
  readonly says: string;
  /** Undefined: a switch. */
  readonly value: Value | undefined;
}

export interface CommandWords {
  /** Names from below the program's on: ["trace", "record"]; of the program itself []. */
  readonly path: readonly string[];
  readonly commands: readonly { readonly name: string; readonly says: string }[];
  readonly options: readonly OptionWords[];
  /** Of its first argument; undefined: there is none. */
  readonly argument: Value | undefined;
}

const HELP: OptionWords = { words: ["--help", "-h"], says: "display help for command", value: undefined };

/** The command itself first, then all below it. */
export function commandTree(command: Command, path: readonly string[] = []): CommandWords[] {
  const below = [...command.commands];
  const names = below.map((each) => ({ name: each.name(), says: each.description() }));
  const [argument] = command.registeredArguments;
  const own: CommandWords = {
    path,
    commands: below.length === 0 ? [] : [...names, { name: "help", says: "display help for command" }],
    options: [...command.options.filter(({ hidden }) => !hidden).map(optionWords), HELP],
    argument: argument === undefined ? undefined : (argument.argChoices ?? valueNamed(argument.name())),
  };
  return [own, ...below.flatMap((each) => commandTree(each, [...path, each.name()]))];
}

function optionWords(option: Option): OptionWords {
  const words = [option.long, option.short].filter((word) => word !== undefined && word !== null);
  const takesValue = option.required || option.optional;
  const name = /[<[]([^>\]]*)[>\]]/.exec(option.flags)?.[1] ?? "";
  return {
    words,
    says: option.description,
    value: takesValue ? (option.argChoices ?? valueNamed(name)) : undefined,
  };
}

/** The names of values say what they are: all commands spell them alike. */
function valueNamed(name: string): Value {
  if (/\b(file|socket|path|trace|record|page)s?\b/.test(name)) return "file";
  return /\bfolder\b/.test(name) ? "folder" : "other";
}
