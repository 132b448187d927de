// The man page, made of the same tree of commands that is run: what --help says, in one page, with the exit codes.
// Format: man(7), groff's.

import type { Command } from "commander";
import { EXIT_STATUSES } from "./failure.ts";
import { withAllBelow } from "./program.ts";

/** Text of man/deltavee.1. */
export function manPage(program: Command): string {
  const commands = withAllBelow(program).slice(1);
  const runnable = commands.filter((command) => command.commands.length === 0);
  return `${[
    '.\\" Made from the command line itself by scripts/man.mjs: not to be edited.',
    ".TH DELTAVEE 1",
    ".SH NAME",
    `deltavee \\- ${escaped(firstLower(program.description().replace(/\.$/, "")))}`,
    ".SH SYNOPSIS",
    ...runnable.flatMap((command) => [
      ".PP",
      `.B deltavee ${escaped(nameOf(command))}`,
      escaped(command.usage()),
    ]),
    ".SH DESCRIPTION",
    "Deltavee moves running virtual machines of stock QEMU/KVM over links that are too slow for it. A page that was",
    "sent before leaves as the difference to what the destination already holds.",
    ".SH COMMANDS",
    ...commands.flatMap(commandLines),
    ".SH EXIT STATUS",
    ...EXIT_STATUSES.flatMap(([code, meaning]) => [".TP", `.B ${code}`, escaped(meaning)]),
    ".SH ENVIRONMENT",
    ...[".TP", ".B NO_COLOR", "If set and not empty nothing is printed in colour."],
    ...[
      ".TP",
      ".B XDG_RUNTIME_DIR, XDG_STATE_HOME",
      "Where migrations are kept track of, and keys of paired hosts.",
    ],
    ".SH SEE ALSO",
    ".BR qemu\\-system\\-x86_64 (1)",
    "",
  ].join("\n")}`;
}

function commandLines(command: Command): string[] {
  const { options, registeredArguments } = command;
  return [
    `.SS deltavee ${escaped(nameOf(command))}`,
    escaped(command.description()),
    ...registeredArguments.flatMap((each) => [
      ".TP",
      `.I ${escaped(each.name())}`,
      escaped(withChoices(each.description, each.argChoices)),
    ]),
    ...options.flatMap((option) => [
      ".TP",
      `.B ${escaped(option.flags)}`,
      escaped(withChoices(option.description, option.argChoices)),
    ]),
    ...helpAfter(command),
  ];
}

function withChoices(says: string, choices: readonly string[] | undefined): string {
  return choices === undefined ? says : `${says} (${choices.join(", ")})`;
}

/** What stands below the options in --help, as it stands there. */
function helpAfter(command: Command): string[] {
  let whole = "";
  command.configureOutput({ writeOut: (text) => (whole += text) }).outputHelp();
  const after = whole.slice(command.helpInformation().length).trim();
  if (after === "") return [];
  return [".PP", ".nf", ...after.split("\n").map(escaped), ".fi"];
}

function nameOf(command: Command): string {
  const above = command.parent;
  return above?.parent ? `${nameOf(above)} ${command.name()}` : command.name();
}

/** A dot or a quote at the beginning of a line would be a command, a backslash anywhere an escape. */
function escaped(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^[.']/, "\\&$&");
}

function firstLower(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
