#!/usr/bin/env node
// Records what a version of this program says in the tunnel, as fixture for those after it (src/engine/upgrade.test.ts):
//   node scripts/record-protocol.mjs [COMMIT ...]       (default: HEAD)
// To be run with each protocol version before the next one is begun. Each commit is checked out beside this one, and
// its own code plays both sides of one small migration.

import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bin } from "./build.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const RECORDER = "test/support/record-protocol.ts";
const TEST = `
import { writeFileSync } from "node:fs";
import { test } from "vitest";
import { recordConversation } from "../../test/support/record-protocol.ts";
test("record", async () => {
  writeFileSync(process.env.RECORDING, JSON.stringify(await recordConversation()));
});
`;

for (const commit of process.argv.slice(2).length > 0 ? process.argv.slice(2) : ["HEAD"]) record(commit);

function record(commit) {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-protocol-"));
  const tree = join(folder, "tree");
  const recording = join(folder, "recording.json");
  try {
    run("git", ["worktree", "add", "--detach", tree, commit], root);
    symlinkSync(join(root, "node_modules"), join(tree, "node_modules"));
    cpSync(join(root, RECORDER), join(tree, RECORDER));
    writeFileSync(join(tree, "src/engine/record-protocol.test.ts"), TEST);
    const vitest = [
      "node_modules/vitest/vitest.mjs",
      "run",
      "--project",
      "unit",
      "src/engine/record-protocol.test.ts",
    ];
    run(process.execPath, vitest, tree, { RECORDING: recording });
    const said = JSON.parse(readFileSync(recording, "utf8"));
    const of = run("git", ["log", "-1", "--format=%H", commit], root).trim();
    const file = join(root, `test/fixtures/protocol/version-${said.protocolVersion}.json`);
    writeFileSync(file, `${JSON.stringify({ commit: of, ...said }, null, 1)}\n`);
    run(process.execPath, [bin("@biomejs/biome", "biome"), "format", "--write", file], root);
    console.log(`${file}: of ${of}`);
  } finally {
    spawnSync("git", ["worktree", "remove", "--force", tree], { cwd: root });
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(command, commandArguments, cwd, environment = {}) {
  const { status, stdout, stderr } = spawnSync(command, commandArguments, {
    cwd,
    env: { ...process.env, ...environment },
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`${command} ${commandArguments.join(" ")} failed:\n${stdout}\n${stderr}`);
  return stdout;
}
