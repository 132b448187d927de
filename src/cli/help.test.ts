// What is told of the command line, held to the command line: --help and its examples, the man page, exit codes, and
// every command that stands in a document.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { beforeAll, describe, expect, test } from "vitest";
import { deltaveeLines, parseDeltavee, shellWords } from "../../test/support/command-lines.ts";
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

/** Documents for users; decisions tell of what was once. */
const DOCUMENTS = [
  "README.md",
  "SECURITY.md",
  ...readdirSync(join(ROOT, "docs")).flatMap((name) => (name.endsWith(".md") ? [`docs/${name}`] : [])),
];

/** Fenced as shell, or indented. */
function blocksOf(document: string): string[] {
  const text = read(document);
  const fenced = [...text.matchAll(/^```(?:sh|bash|console)\n([\s\S]*?)^```/gm)].map(([, block]) => block!);
  const indented = text.replace(/^```[\s\S]*?^```/gm, "").matchAll(/^(?: {4}.*\n)+/gm);
  return [...fenced, ...[...indented].map(([block]) => block)];
}

/** Its blocks are run as they stand: test/e2e/package.test.ts. */
const RUN = "docs/quick-start.md";

/** Documents whose commands are held to the command line, but not run as they stand there, and why. */
const PARSED_ONLY: Readonly<Record<string, string>> = {
  "README.md":
    "two hosts; the tunnel is what the quick start runs on one, direct mode is test/e2e/migration.test.ts",
  "docs/choosing-a-mode.md": "two hosts, as in README.md; TLS is test/e2e/security.test.ts",
  "docs/how-it-works.md":
    "of a migration that was killed: test/e2e/crash.test.ts kills some and recovers them",
  "docs/reliability.md": "as docs/how-it-works.md",
  "docs/libvirt.md": "two hosts with libvirt: test/e2e/libvirt.test.ts runs the same between two daemons",
  "docs/live-page.md": "two hosts and a browser: test/e2e/page.test.ts runs a demonstration in Chromium",
  "docs/operations.md": "services of two hosts: test/e2e/serve-program.test.ts runs two on one",
  "docs/lab.md": "root, network namespaces and hours: test/e2e/lab.test.ts makes short runs",
  "docs/page-cache.md": "page traces of migrations that take minutes; trace.test.ts replays short ones",
};

describe("every command of the documents", () => {
  test("is run, or it is said why not", () => {
    const withCommands = DOCUMENTS.filter(
      (document) => deltaveeLines(blocksOf(document).join("\n")).length > 0,
    );
    expect(withCommands.sort()).toEqual([RUN, ...Object.keys(PARSED_ONLY)].sort());
  });

  test.each(DOCUMENTS)("%s", async (document) => {
    for (const block of blocksOf(document)) {
      for (const words of deltaveeLines(block)) await parseDeltavee(words);
    }
  });

  test("that npm is to run is a script of this package", () => {
    const { scripts } = JSON.parse(read("package.json"));
    for (const document of DOCUMENTS) {
      for (const [, name] of blocksOf(document)
        .join("\n")
        .matchAll(/\bnpm run ([a-z0-9:]+)/g)) {
        expect(Object.keys(scripts), `npm run ${name} of ${document}`).toContain(name);
      }
    }
  });

  test("that says a path of this package names one that is there", () => {
    for (const document of DOCUMENTS) {
      const paths = blocksOf(document)
        .join("\n")
        .matchAll(/\b((?:scripts|examples|guest)\/[\w./-]+\.(?:m?js|sh|elf))\b/g);
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
