import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { type JournalEntry, knownMigrations } from "./journal.ts";
import { keepJournal, leftByTheDead, monitorName, openStateFolder } from "./keep.ts";
import type { StateFolder } from "./state-folder.ts";

const QMP = { kind: "unix", path: "/run/vm.qmp" } as const;
const SETTINGS = { capabilities: [], parameters: { "downtime-limit": 250 } };
const subject = (digit: string, side: "source" | "destination" = "source") =>
  ({ session: digit.repeat(32), side, mode: "direct", peer: "host2:4444", settings: SETTINGS }) as const;

let path: string;
let notices: string[];
const notice = (message: string) => notices.push(message);
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), "deltavee-keep-"));
  notices = [];
});
afterEach(() => rmSync(path, { recursive: true }));

/** Makes its process one that has ended. */
function kill(folder: StateFolder, digit: string): void {
  const name = `${digit.repeat(32)}-source`;
  const entry = JSON.parse(folder.read(name)) as JournalEntry;
  folder.write(name, JSON.stringify({ ...entry, process: { pid: spawnSync("true").pid } }));
}

test("a folder that was asked for must be usable; one that was not is a notice, and no journal is kept", () => {
  const file = join(path, "file");
  writeFileSync(file, "");
  expect(() => openStateFolder(file, notice)).toThrow(UsageError);
  expect(notices).toEqual([]);
  const folder = openStateFolder(undefined, notice, file);
  expect(folder).toBeUndefined();
  expect(notices).toEqual([
    expect.stringMatching(/^deltavee status does not know of this migration: .*--state-dir/),
  ]);
  expect(keepJournal(folder, { subject: subject("0"), qmp: QMP, notice })).toBeUndefined();
  expect(leftByTheDead(folder, QMP).settings).toBeUndefined();
});

test("what the dead had to put back is found by the VM, and forgotten when told so; the living are left alone", () => {
  const folder = openStateFolder(undefined, notice, join(path, "state"))!;
  for (const digit of ["1", "2"]) keepJournal(folder, { subject: subject(digit), qmp: QMP, notice });
  const other = { kind: "unix", path: "/run/other.qmp" } as const;
  keepJournal(folder, { subject: subject("3"), qmp: other, notice });
  expect(leftByTheDead(folder, QMP).settings).toBeUndefined();
  kill(folder, "1");
  kill(folder, "3");
  const left = leftByTheDead(folder, QMP);
  expect(left.settings).toEqual(SETTINGS);
  expect(readdirSync(folder.path)).toHaveLength(3);
  left.forget();
  const sessions = knownMigrations(folder).entries.map(({ session }) => session[0]);
  expect(sessions.sort()).toEqual(["2", "3"]);
});

test("a monitor has one name wherever the command was started", () => {
  expect(monitorName({ kind: "unix", path: "vm.qmp" })).toBe(`unix:${join(process.cwd(), "vm.qmp")}`);
  expect(monitorName({ kind: "tcp", host: "::1", port: 4444 })).toBe("[::1]:4444");
});
