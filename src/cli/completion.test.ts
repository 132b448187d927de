// Completion as real shells do it, with the words of a command line as they hand them over.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { STALL_POLICIES } from "../engine/switchover/stall-policies.ts";
import { bashCompletion } from "./completion/bash.ts";
import { fishCompletion } from "./completion/fish.ts";
import { type CommandWords, commandTree } from "./completion/tree.ts";
import { zshCompletion } from "./completion/zsh.ts";
import { programFor, withAllBelow } from "./program.ts";

let tree: CommandWords[];
let folder: string;
beforeAll(async () => {
  tree = commandTree(await programFor([]));
  folder = mkdtempSync(join(tmpdir(), "deltavee-completion-"));
  writeFileSync(join(folder, "run one.ndjson"), "");
  writeFileSync(join(folder, "bash"), bashCompletion(tree));
  writeFileSync(join(folder, "zsh"), zshCompletion(tree));
  writeFileSync(join(folder, "fish"), fishCompletion(tree));
  // All commands are loaded, with the whole lab: that takes a moment on a busy machine.
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true }));

const quoted = (word: string) => `'${word}'`;

/** What each shell offers for the last of `words`. */
const SHELLS = {
  bash: (words: string[]) =>
    // compopt works only where bash itself has called the function.
    `compopt() { :; }; source ./bash; COMP_WORDS=(${words.map(quoted).join(" ")}); COMP_CWORD=${words.length - 1};
     $(complete -p deltavee | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' "\${COMPREPLY[@]}"`,
  // zsh completes in its line editor only: what the function would hand to that is printed.
  zsh: (words: string[]) =>
    `compdef() { :; }; compadd() { shift; print -l -- "$@"; }; _message() { :; }
     _files() { if [[ $1 == -/ ]]; then print -l -- *(/N); else print -l -- *; fi; }
     _describe() { print -l -- "\${(@)\${(@P)@[-1]}%%:*}"; }
     source ./zsh; words=(${words.map(quoted).join(" ")}); CURRENT=${words.length}; PREFIX=${quoted(words.at(-1)!)}
     _deltavee`,
  fish: (words: string[]) => `source ./fish; complete -C '${words.join(" ")}' | cut -f1`,
} as const;

describe.each(Object.keys(SHELLS) as (keyof typeof SHELLS)[])("%s", (shell) => {
  const isThere = spawnSync(shell, ["-c", "exit 0"]).status === 0;
  if (!isThere) console.warn(`Completion of ${shell} is not tested: there is no ${shell} here`);

  function offered(...words: string[]): string[] {
    const script = SHELLS[shell](["deltavee", ...words]);
    const { stdout, stderr, status } = spawnSync(
      shell,
      shell === "zsh" ? ["-f", "-c", script] : ["-c", script],
      {
        cwd: folder,
        encoding: "utf8",
        env: { PATH: process.env.PATH, HOME: folder },
      },
    );
    expect(stderr).toBe("");
    expect(status).toBe(0);
    // zsh itself leaves out what does not begin like this.
    const begin = words.at(-1)!;
    return stdout.split("\n").filter((line) => line !== "" && line.startsWith(begin));
  }

  test.skipIf(!isThere)("commands, and those below one", () => {
    const top = offered("");
    for (const { path } of tree.filter((each) => each.path.length === 1)) expect(top).toContain(path[0]);
    expect(offered("re")).toEqual(expect.arrayContaining(["receive", "recover", "relay", "report"]));
    expect(offered("re")).not.toContain("migrate");
    expect(offered("trace", "")).toEqual(expect.arrayContaining(["record", "replay"]));
    expect(offered("trace", "")).not.toContain("migrate");
  });

  test.skipIf(!isThere)("options of the command, and of no other", () => {
    expect(offered("migrate", "--max-").sort()).toEqual(
      ["--max-bandwidth", "--max-bytes", "--max-downtime", "--max-time"].sort(),
    );
    expect(offered("receive", "--max-")).toEqual([]);
    // A value that is called like a command is none.
    expect(offered("migrate", "--qmp", "receive", "--max-t")).toEqual(["--max-time"]);
    expect(offered("trace", "record", "--cont")).toEqual(["--contents"]);
  });

  test.skipIf(!isThere)(
    "values: of an option that has a few, files, and nothing where only its user knows",
    () => {
      expect(offered("migrate", "--on-stall", "").sort()).toEqual(Object.keys(STALL_POLICIES).sort());
      expect(offered("migrate", "--on-stall", "th")).toEqual(["throttle"]);
      expect(offered("completion", "").sort()).toEqual(["bash", "fish", "zsh"]);
      const files = offered("migrate", "--record", "").join("\n");
      expect(files.replaceAll("\\", "")).toContain("run one.ndjson");
      expect(offered("migrate", "--max-time", "")).toEqual([]);
      expect(offered("migrate", "--state-dir", "").join()).not.toContain("ndjson");
    },
  );
});

test("bash: a value after an equals sign", () => {
  const script = SHELLS.bash(["deltavee", "migrate", "--on-stall", "=", "ab"]);
  const { stdout } = spawnSync("bash", ["-c", script], { cwd: folder, encoding: "utf8" });
  expect(stdout).toBe("abort\n");
});

test("every option of every command is known, with what may follow it", async () => {
  const commands = withAllBelow(await programFor([]));
  const known = tree.flatMap(({ options }) => options.flatMap(({ words }) => words));
  for (const { options } of commands) {
    for (const { long } of options) expect(known).toContain(long);
  }
  const migrate = tree.find(({ path }) => path.join() === "migrate")!;
  const follows = (word: string) => migrate.options.find(({ words }) => words.includes(word))!.value;
  expect(follows("--record")).toBe("file");
  expect(follows("--tls-dir")).toBe("folder");
  expect(follows("--max-time")).toBe("other");
  expect(follows("--standard")).toBeUndefined();
});
