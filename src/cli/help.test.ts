// What is told of the command line, held to the command line: --help and its examples, the man page, exit codes, and
// every command that stands in a document.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { beforeAll, describe, expect, test } from "vitest";
import { deltaveeLines, parseDeltavee, shellWords } from "../../test/support/command-lines.ts";
import { blocksOf, commandsOf, DOCUMENTS, TREATMENTS } from "../../test/support/document-blocks.ts";
import { CancelledError, DeltaveeError, type ErrorCode } from "../base/errors.ts";
import { EXIT_STATUSES, exitCodeOf } from "./failure.ts";
import { manPage } from "./man.ts";
import { programFor, withAllBelow } from "./program.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

let program: Command;
// All commands are loaded, with the whole lab: that takes a moment on a busy machine.
beforeAll(async () => {
  program = await programFor([]);
}, 120_000);

function helpOf(command: Command): string {
  let help = "";
  command.configureOutput({ writeOut: (text) => (help += text) }).outputHelp();
  return help;
}

test("every command's --help has examples, and each of them is one", async () => {
  const runnable = withAllBelow(program).filter((command) => command.commands.length === 0);
  expect(runnable.length).toBeGreaterThan(15);
  for (const command of runnable) {
    const [, examples] = /^Examples?:\n([\s\S]*)/m.exec(helpOf(command)) ?? [];
    expect(examples, `${command.name()} --help has no examples`).toBeDefined();
    const lines = deltaveeLines(examples!);
    expect(lines.length, `no example of ${command.name()} is a command`).toBeGreaterThan(0);
    expect(lines.some((words) => words.includes(command.name()))).toBe(true);
    for (const words of lines) await parseDeltavee(words);
  }
});

test("an example that is none is found", async () => {
  for (const words of [
    ["migrate"],
    ["receive", "--fast"],
    ["teleport"],
    ["plan", "--link", "wide"],
    ["report"],
  ]) {
    await expect(parseDeltavee(words)).rejects.toThrow();
  }
});

test("lines of a shell are read as a shell reads them", () => {
  expect(shellWords(`a 'b c' "d \\" e" f\\ g # h`)).toEqual(["a", "b c", 'd " e', "f g"]);
  expect(
    deltaveeLines(
      "host1$ deltavee pair --list  # who\nqemu-system-x86_64 -x\nnpm start -- --link 5mbit\nnpm start\ndeltavee \\\n  status --json > out",
    ),
  ).toEqual([["pair", "--list"], ["demo", "--link", "5mbit"], ["demo"], ["status", "--json"]]);
});

test("man/deltavee.1 is made from the command line as it is", () => {
  // To make it anew: npm run build && node scripts/man.mjs
  expect(read("man/deltavee.1")).toBe(manPage(program));
});

test("docs/api.md is made from the declarations of the library as they are", () => {
  const { status, stderr } = spawnSync(process.execPath, ["scripts/api.mjs", "--check"], { cwd: ROOT });
  expect(`${status} ${stderr}`).toBe("0 ");
});

describe("exit codes", () => {
  const codes = /export type ErrorCode =([^;]+);/
    .exec(read("src/base/errors.ts"))![1]!
    .matchAll(/"([A-Z_]+)"/g);

  test("every error ends with one that is in the table", () => {
    const known = EXIT_STATUSES.map(([code]) => code);
    for (const [, code] of codes)
      expect(known).toContain(exitCodeOf(new DeltaveeError(code as ErrorCode, "x")));
    expect(known).toContain(exitCodeOf(new CancelledError("x")));
    expect(known).toContain(exitCodeOf(new Error("x")));
  });

  test("docs/errors.md has the same table", () => {
    const rows = [...read("docs/errors.md").matchAll(/^\| (\d+) \| (.*) \|$/gm)];
    expect(rows.map(([, code, meaning]) => [Number(code), meaning!.replaceAll("`", "")])).toEqual(
      EXIT_STATUSES,
    );
  });
});

describe("every command of the documents", () => {
  const blocks = DOCUMENTS.flatMap(blocksOf);
  const textOf = (document: string) =>
    blocksOf(document)
      .map(({ text }) => text)
      .join("\n");

  test("is run by a test, or it is said why not", () => {
    expect(blocks.length).toBeGreaterThan(35);
    expect(Object.keys(TREATMENTS).sort()).toEqual(blocks.map(({ key }) => key).sort());
    for (const { key, text } of blocks) {
      const treatment = TREATMENTS[key]!;
      if ("runBy" in treatment) {
        expect(() => read(treatment.runBy), key).not.toThrow();
        const commands = commandsOf(text).map(({ command }) => command);
        for (const command of Object.keys(treatment.except ?? {})) expect(commands, key).toContain(command);
      } else if ("sameAs" in treatment) {
        const other = blocks.find((block) => block.key === treatment.sameAs);
        expect(TREATMENTS[treatment.sameAs], key).toHaveProperty("runBy");
        expect(commandsOf(text), key).toEqual(commandsOf(other!.text));
      }
    }
  });

  test.each(DOCUMENTS)("%s", async (document) => {
    for (const words of deltaveeLines(textOf(document))) await parseDeltavee(words);
  });

  test("that npm is to run is a script of this package", () => {
    const { scripts } = JSON.parse(read("package.json"));
    for (const document of DOCUMENTS) {
      for (const [, name] of textOf(document).matchAll(/\bnpm run ([a-z0-9:]+)/g)) {
        expect(Object.keys(scripts), `npm run ${name} of ${document}`).toContain(name);
      }
    }
  });

  test("that says a path of this package names one that is there", () => {
    for (const document of DOCUMENTS) {
      const paths = textOf(document).matchAll(/\b((?:scripts|examples|guest)\/[\w./-]+\.(?:m?js|sh|elf))\b/g);
      for (const [, path] of paths) expect(() => read(path!), `${path} of ${document}`).not.toThrow();
    }
  });
});

test("documents find each other: every relative link leads somewhere", () => {
  for (const document of [...DOCUMENTS, "docs/README.md"]) {
    const links = read(document).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)/g);
    for (const [, link] of links) {
      const target = new URL(link!, `file://${join(ROOT, document)}`).pathname;
      expect(() => readdirOrFile(target), `${link} in ${document}`).not.toThrow();
    }
  }
});

function readdirOrFile(path: string): void {
  try {
    readFileSync(path);
  } catch {
    readdirSync(path);
  }
}
