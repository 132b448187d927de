// `deltavee pair` as people use it: two processes, a code carried from one to the other by standard input.

import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type CliRun, freePort, runCli } from "../../test/support/processes.ts";
import { PairedKeys } from "../library/paired-keys.ts";

let folder: string;
const runs: CliRun[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-pair-"));
});
afterEach(async () => {
  await Promise.all(runs.splice(0).map((run) => run.stop()));
  rmSync(folder, { recursive: true });
});

async function pair(host: string, ...more: string[]): Promise<CliRun> {
  const run = await runCli(["pair", ...more, "--keys-dir", join(folder, host)]);
  runs.push(run);
  return run;
}

/** Host 1 connects to host 2, with the code that host 2 shows unless told otherwise. */
async function meet(
  given?: string,
  as: readonly string[] = ["--as", "host1"],
): Promise<{ codes: (number | null)[]; said: string[] }> {
  const address = `127.0.0.1:${await freePort()}`;
  const listening = await pair("host2", "--listen", address, ...as);
  await listening.stdout.waitFor(({ text }) => text.includes("-"), "a code", { timeoutMs: 30_000 });
  const connecting = await pair("host1", "--with", address);
  connecting.stdin.end(`${given ?? listening.stdout.lines[0]!.text}\n`);
  const codes = await Promise.all([listening, connecting].map(async (run) => (await run.exited).code));
  return { codes, said: [listening.stderrTail(), connecting.stderrTail()] };
}

test("two hosts know each other afterwards, in files that nobody else can read", async () => {
  const { codes, said } = await meet();
  expect(codes, said.join("\n")).toEqual([0, 0]);
  const keys = [join(folder, "host1"), join(folder, "host2")].map((path) => PairedKeys.find(path)!);
  expect(keys.map((each) => each.peers())).toEqual([["127.0.0.1"], ["host1"]]);
  expect(keys[0]!.certificateOf("127.0.0.1")).toBe(keys[1]!.own().certificate);
  expect(keys[1]!.certificateOf("host1")).toBe(keys[0]!.own().certificate);
  for (const { path } of keys) {
    expect(statSync(path).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(path)) expect(statSync(join(path, file)).mode & 0o777).toBe(0o600);
  }
  const list = await pair("host1", "--list");
  expect((await list.exited).code).toBe(0);
  expect(list.stdout.lines.map(({ text }) => text)).toEqual([
    expect.stringMatching(/^127\.0\.0\.1\tsha256:[0-9a-f]{64}$/),
  ]);
  const json = await pair("host1", "--list", "--json");
  await json.exited;
  expect(JSON.parse(json.stdout.lines[0]!.text)).toEqual({
    peers: [{ name: "127.0.0.1", fingerprint: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) }],
  });
  expect((await (await pair("host1", "--forget", "127.0.0.1")).exited).code).toBe(0);
  expect((await (await pair("host1", "--forget", "127.0.0.1")).exited).code).toBe(2);
  expect(keys[0]!.peers()).toEqual([]);
});

test("a wrong code pairs nobody; what is no code at all is not even tried", async () => {
  const wrong = await meet("ABCD-EFGH-JKMN-PQRS");
  expect(wrong.codes).toEqual([1, 1]);
  expect(wrong.said[0]).toMatch(/PROTOCOL_REFUSED: The other side does not know the code/);
  for (const host of ["host1", "host2"]) expect(PairedKeys.find(join(folder, host))!.peers()).toEqual([]);
  const none = await pair("host1", "--with", "127.0.0.1:1");
  none.stdin.end("hello\n");
  expect((await none.exited).code).toBe(2);
});

test("what a host calls itself does not take the place of another one; what the operator calls it does", async () => {
  const { certificate } = PairedKeys.create(join(folder, "old")).own();
  const [keys1, keys2] = ["host1", "host2"].map((host) => PairedKeys.create(join(folder, host))) as [
    PairedKeys,
    PairedKeys,
  ];
  const name = hostname().replace(/[^A-Za-z0-9._-]/g, "-");
  keys2.pin(name, certificate);
  const unasked = await meet(undefined, []);
  expect(unasked.codes, unasked.said.join("\n")).toEqual([2, 0]);
  expect(unasked.said[0]).toMatch(/A host with another key is known as/);
  expect(keys2.certificateOf(name)).toBe(certificate);
  expect((await meet(undefined, ["--as", name])).codes).toEqual([0, 0]);
  expect(keys2.certificateOf(name)).toBe(keys1.own().certificate);
});

test.each([
  [[]],
  [["--listen", "127.0.0.1:0", "--with", "127.0.0.1:1"]],
  [["--with", "127.0.0.1:0"]],
  [["--listen", "nowhere"]],
  [["--listen", "127.0.0.1:0", "--as", "../x"]],
])("wrong usage: %j", async (words) => {
  const run = await pair("host1", ...words);
  run.stdin.end("\n");
  expect((await run.exited).code, run.stderrTail()).toBe(2);
});

test("a host whose name cannot be that of a file is refused before anybody is asked for a code", async () => {
  const long = ["a", "a", "a", "a", "example"].map((label) => label.repeat(60)).join(".");
  expect(long.length).toBeGreaterThan(245);
  for (const more of [
    ["--with", `${long}:4446`],
    ["--listen", "127.0.0.1:0", "--as", long],
  ]) {
    const run = await pair("host1", ...more);
    expect((await run.exited).code).toBe(2);
    expect(run.stderrTail()).toContain("it is longer than 240 characters. Give it another name with --as");
  }
  expect(PairedKeys.find(join(folder, "host1"))).toBeUndefined();
});

test("keys that others have access to are not used, nor are damaged ones", async () => {
  expect((await meet()).codes).toEqual([0, 0]);
  writeFileSync(join(folder, "host1", "identity.json"), "{}");
  const keys = PairedKeys.find(join(folder, "host1"))!;
  expect(() => keys.own()).toThrow(/cannot be read: remove it, and pair the hosts again/);
});
