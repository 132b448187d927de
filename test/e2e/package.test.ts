// The package as npm makes it, installed into an empty folder: the program, the library, the examples, and the quick start
// of the documents as it stands, with a real QEMU.

import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { formatBytes } from "../../src/base/units.ts";
import { PACKAGE_ROOT } from "../support/package-root.ts";
import { freePort } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { expectMoved, LIGHT_LOAD, startPair } from "./scene.ts";

const INSTALL_TIMEOUT_MS = 480_000;
const STEP_TIMEOUT_MS = 480_000;
/** Of what users download. What is in it is listed by npm pack; it has never been larger than half of this. */
const PACKED_BYTES_MAX = 4 * 2 ** 20;

let folder: string;
let tarball: string;
const installed = () => join(folder, "node_modules/deltavee");
const bin = () => join(folder, "node_modules/.bin/deltavee");

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Ended> {
  const child = spawn(command, args, { cwd: folder, env, timeout: STEP_TIMEOUT_MS });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (text: Buffer) => (stdout += text.toString()));
  child.stderr.on("data", (text: Buffer) => (stderr += text.toString()));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-package-"));
  const packed = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
    cwd: PACKAGE_ROOT,
    encoding: "utf8",
  });
  const [{ filename, size, unpackedSize, files }] = JSON.parse(packed);
  console.log(
    `${filename}: ${formatBytes(size)}, ${formatBytes(unpackedSize)} unpacked, ${files.length} files`,
  );
  tarball = join(folder, filename);
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ name: "somebody", private: true, type: "module" }),
  );
  await install();
}, INSTALL_TIMEOUT_MS);

afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

/** As a user does, from what npm has in its cache. Where that lacks something, dependencies are those of the checkout. */
async function install(): Promise<void> {
  const options = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"];
  const { code, stderr } = await run("npm", ["install", ...options, tarball]);
  if (code === 0) return;
  console.warn(`npm could not install offline, dependencies are linked instead: ${stderr.split("\n")[0]}`);
  mkdirSync(installed(), { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", installed(), "--strip-components=1"]);
  for (const name of readdirSync(join(PACKAGE_ROOT, "node_modules"))) {
    if (name.startsWith(".") || name === "deltavee") continue;
    symlinkSync(join(PACKAGE_ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
  mkdirSync(join(folder, "node_modules/.bin"));
  symlinkSync("../deltavee/dist/cli/main.js", bin());
  // As npm does.
  chmodSync(bin(), 0o755);
}

test("it holds what it needs, no tests, and is small", () => {
  expect(statSync(tarball).size).toBeLessThan(PACKED_BYTES_MAX);
  for (const path of [
    "guest/guest.elf",
    "dist/kernel/simd.wasm",
    "man/deltavee.1",
    "dist/library/index.d.ts",
    "LICENSE",
  ])
    expect(statSync(join(installed(), path)).size).toBeGreaterThan(0);
  const files = readdirSync(installed(), { recursive: true, encoding: "utf8" });
  expect(files.filter((name) => /\.test\.|^src|^test\b/.test(name))).toEqual([]);
});

test("the program says its version, and looks at this host", async () => {
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8"));
  expect(await run(bin(), ["--version"])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  const { code, stdout } = await run(bin(), ["doctor", "--json"]);
  const { worst, findings } = JSON.parse(stdout);
  expect(code).toBe(worst === "problem" ? 1 : 0);
  expect(findings.map(({ check }: { check: string }) => check)).toEqual(
    expect.arrayContaining(["node", "memory", "clock", "qemu", "kvm"]),
  );
});

test("a VM of the embedded hypervisor moves twice, and arrives whole", async () => {
  const options = ["--hypervisor", "v86", "--memory", "16MiB", "--link", "50mbit", "--json"];
  const { code, stdout, stderr } = await run(bin(), ["demo", ...options]);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  expect(JSON.parse(stdout)).toMatchObject({
    ok: true,
    runs: [{ outcome: "completed" }, { outcome: "completed" }],
  });
});

test("the library is all that can be imported, and its types are there", async () => {
  const script = `
    import { migrate, receive, EmbeddedVm, DeltaveeError, version } from "deltavee";
    const error = await migrate({ qmp: "/nowhere/qmp", to: "tcp:127.0.0.1:1" }).catch((thrown) => thrown);
    const hidden = await import("deltavee/dist/engine/source.js").catch((thrown) => thrown);
    console.log(typeof receive, typeof EmbeddedVm, error instanceof DeltaveeError, error.code, hidden.code, version);
  `;
  const { stdout, stderr } = await run(process.execPath, ["--input-type=module", "-e", script]);
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8"));
  expect(stderr).toBe("");
  expect(stdout).toBe(`function function true QMP_UNAVAILABLE ERR_PACKAGE_PATH_NOT_EXPORTED ${version}\n`);
  writeFileSync(
    join(folder, "typed.mts"),
    `import { type ErrorCode, migrate, type RecordEvent } from "deltavee";
     const phases: string[] = [];
     const onEvent = (event: RecordEvent) => { if (event.type === "phase") phases.push(event.phase); };
     const { summary } = await migrate({ qmp: "q", to: "tcp:h:1", onEvent });
     const bytes: number | undefined = summary?.wireBytes;
     const code: ErrorCode = "LINK_LOST";
     // @ts-expect-error: no such option
     await migrate({ qmp: "q", to: "tcp:h:1", speed: bytes ?? code });`,
  );
  const tsc = join(PACKAGE_ROOT, "node_modules/typescript/bin/tsc");
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2023", "--module", "nodenext"];
  const types = ["--types", "node", "--typeRoots", join(PACKAGE_ROOT, "node_modules/@types")];
  expect(await run(process.execPath, [tsc, ...options, ...types, "typed.mts"])).toEqual({
    code: 0,
    stdout: "",
    stderr: "",
  });
});

/** Run below, as they stand. */
const EXAMPLES = ["embedded.mjs", "move.mjs", "take-in.mjs"];

test("every example is run here", () => {
  const examples = readdirSync(join(PACKAGE_ROOT, "examples")).filter((name) => name.endsWith(".mjs"));
  expect(examples.sort()).toEqual(EXAMPLES);
  for (const name of EXAMPLES) cpSync(join(PACKAGE_ROOT, "examples", name), join(folder, name));
});

test("the example that needs nothing", async () => {
  const { code, stdout, stderr } = await run(process.execPath, ["embedded.mjs"]);
  expect(stderr).toBe("");
  expect(stdout).toContain("the guest is running on destination");
  expect(stdout).toMatch(/^VERIFY ok /m);
  expect(code).toBe(0);
});

const qemus = findQemus();
const installedQemu = [...qemus.values()].find(({ leadingArguments }) => leadingArguments.length === 0);

/** Stock QEMU 7.2 loses page updates of its own under TCG, also of the page on which the guest counts. */
const soundQemu = qemus.get("10.0");

test.skipIf(soundQemu === undefined)("the examples that move a VM of QEMU, and take it in", async () => {
  const { source, destination } = await startPair({ binary: soundQemu!, append: LIGHT_LOAD });
  const [here, there] = [source.toolQmp.path, destination.toolQmp.path];
  const nobody = await run(process.execPath, ["move.mjs", here, "deltavee://127.0.0.1:1"]);
  expect(nobody).toMatchObject({ code: 1, stdout: "" });
  expect(nobody.stderr).toMatch(/^LINK_FAILED: .* \(the guest is running on source\)\n$/);

  const address = `127.0.0.1:${await freePort()}`;
  const taking = run(process.execPath, ["take-in.mjs", there, address]);
  await expect.poll(() => isListening(address), { timeout: STEP_TIMEOUT_MS }).toBe(true);
  const moved = await run(process.execPath, ["move.mjs", here, `deltavee://${address}`]);
  expect({ code: moved.code, stderr: moved.stderr }).toEqual({ code: 0, stderr: "" });
  expect(moved.stdout).toMatch(/^\d+ MB left, [\d.]+ MB\/s$/m);
  expect(moved.stdout).toMatch(/^The guest is (?!undefined).*; it stood still for [\d.]+ ms$/m);
  expect(await taking).toEqual({
    code: 0,
    stdout: `waiting on deltavee://${address}\nThe guest is running on destination\n`,
    stderr: "",
  });
  await expectMoved(source, destination);
});

/**
 * The blocks of the quick start, one after the other, in one shell: what is another in them than on the page is that the
 * package is there already, that the port is free, and that nobody goes on before the side that waits does wait.
 */
test.skipIf(installedQemu === undefined)("docs/quick-start.md, as it stands", async () => {
  const page = readFileSync(join(PACKAGE_ROOT, "docs/quick-start.md"), "utf8");
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, block]) => block!);
  expect(blocks.length).toBe(7);
  const port = await freePort();
  const script = blocks
    .join("\n")
    .replace(/^npm install deltavee$/m, "")
    // It ends with 1 where KVM does not work, which is no reason not to go on.
    .replace(/^npx deltavee doctor$/m, "npx deltavee doctor || test $? -eq 1")
    .replaceAll("127.0.0.1:4445", `127.0.0.1:${port}`)
    .replaceAll(
      /^(npx deltavee receive .*)$/gm,
      `$1\nuntil (exec 3<>/dev/tcp/127.0.0.1/${port}) 2>/dev/null; do sleep 0.2; done`,
    )
    .replaceAll(
      /^(qemu-system-x86_64 [\s\S]*?-qmp unix:(\w+\.qmp).*)$/gm,
      "$1\nuntil test -S $2; do sleep 0.1; done",
    )
    // The guest is to have something to show on the way.
    .replace(/^(npx deltavee migrate )/m, 'until grep -q "^HB" here.log; do sleep 0.1; done\n$1')
    .replace(/^(tail -n 1 there\.log)$/m, "until test -s there.log; do sleep 0.1; done\n$1");
  expect(script).toContain("\nnpx deltavee migrate ");
  const { code, stdout, stderr } = await run("bash", ["-e", "-m", "-c", script]);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/downtime/i);
  expect(readFileSync(join(folder, "there.log"), "latin1")).toMatch(/HB \d+/);
  expect(readFileSync(join(folder, "report.html"), "utf8")).toMatch(/^<!doctype html>/i);
});

/** Looked up: a connection would be a guest's that never comes. */
function isListening(address: string): boolean {
  const port = Number(address.split(":")[1]).toString(16).toUpperCase().padStart(4, "0");
  return readFileSync("/proc/net/tcp", "latin1").includes(`0100007F:${port} 00000000:0000 0A`);
}
