// Files that a crash leaves behind, files that are not ours, disks that are full: what is known of a migration is
// the truth or nothing, and none of it ends a migration.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import { DeltaveeError, LinkError, UsageError } from "../base/errors.ts";
import { NO_PAGES, type Phase, type RecordEvent } from "../record/schema.ts";
import { RunRecord } from "../record/writer.ts";
import { entryName, isUnderWay, Journal, type JournalSubject, knownMigrations } from "./journal.ts";
import { isAlive, ownIdentity } from "./process-identity.ts";
import { defaultStateFolder, StateFolder } from "./state-folder.ts";

const SUBJECT: JournalSubject = {
  session: "00112233445566778899aabbccddeeff",
  side: "source",
  mode: "direct",
  qmp: "unix:/run/vm.qmp",
  peer: "host2:4444",
  settings: { capabilities: [{ capability: "events", state: false }], parameters: { "downtime-limit": 250 } },
};
const FILE = `${entryName(SUBJECT)}.json`;

let path: string;
let folder: StateFolder;
let notices: string[];
beforeEach(() => {
  path = join(mkdtempSync(join(tmpdir(), "deltavee-state-")), "state");
  folder = StateFolder.create(path);
  notices = [];
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(join(path, ".."), { recursive: true });
});

const open = (guestRuns?: () => boolean) =>
  Journal.open(folder, SUBJECT, (message) => notices.push(message), guestRuns);
const known = () => knownMigrations(StateFolder.find(path));
const inFile = () => known().entries[0];
const phase = (name: Phase) => ({ type: "phase", phase: name, atMs: 0 }) as const;
const sample = (atMs: number, wireBytes: number): RecordEvent => {
  const link = { handedOverBytes: 0, inFlightBytes: 0, windowBytes: 0, linkBytesPerSecond: 5 };
  return { type: "sample", atMs, wireBytes, ...link, pages: NO_PAGES };
};

describe("a journal", () => {
  test("is there from the start, follows the phases, and is gone at the end", () => {
    const journal = open();
    expect(inFile()).toMatchObject({ ...SUBJECT, phase: "setup", process: { pid: process.pid } });
    for (const name of ["iterating", "switchover", "committed"] as const) {
      journal.listener(phase(name));
      expect(inFile()).toMatchObject({ phase: name });
    }
    journal.remove();
    expect(readdirSync(path)).toEqual([]);
    journal.listener(phase("iterating"));
    expect(readdirSync(path)).toEqual([]);
    expect(notices).toEqual([]);
  });

  test("has a phase on file before whoever entered it goes on", () => {
    const journal = open();
    const record = new RunRecord({ clock: new VirtualClock(), listeners: [journal.listener] });
    record.add({ type: "phase", phase: "committed" });
    expect(inFile()).toMatchObject({ phase: "committed" });
  });

  test("how a migration ended does not hide how far it had come", () => {
    const journal = open();
    journal.listener(phase("committed"));
    journal.listener(phase("failed"));
    journal.end("unknown", new LinkError("LINK_LOST", "the link broke"));
    expect(inFile()).toMatchObject({ phase: "committed", endedBecause: "the link broke" });
    expect(inFile()).not.toHaveProperty("settings");
    expect(isUnderWay(inFile()!)).toBe(false);
    journal.remove();
    expect(readdirSync(path)).toEqual([FILE]);
  });

  test("stays after an interrupted post-copy, although it is known where the guest runs: part of it is here", () => {
    const journal = open();
    journal.end("with the destination", new DeltaveeError("POSTCOPY_INTERRUPTED", "the link broke"));
    expect(inFile()).toMatchObject({ endedBecause: "the link broke" });
  });

  test.each([
    ["with the destination", undefined],
    ["paused on destination", undefined],
    ["running on source", new LinkError("LINK_LOST", "the link broke")],
  ] as const)("goes where nothing is left to be done: %s", (vm, error) => {
    open().end(vm, error);
    expect(readdirSync(path)).toEqual([]);
  });

  test("keeps progress, not oftener than once a second", () => {
    const journal = open();
    journal.listener(sample(0, 1));
    journal.listener(sample(250, 2));
    expect(inFile()).toMatchObject({ progress: { wireBytes: 1 } });
    journal.listener(sample(1250, 3));
    expect(inFile()).toMatchObject({ progress: { wireBytes: 3 } });
  });

  test("knows whether the guest was running at the last step", () => {
    let runs = true;
    const journal = open(() => runs);
    expect(inFile()).toMatchObject({ guestWasRunning: true });
    runs = false;
    journal.listener(phase("iterating"));
    expect(inFile()).toMatchObject({ guestWasRunning: false });
  });

  test("is for its owner alone", () => {
    open();
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(statSync(join(path, FILE)).mode & 0o777).toBe(0o600);
  });

  test("that can be written no more disappears, is told of once, and comes back when it can", () => {
    const journal = open();
    const write = vi.spyOn(folder, "write").mockImplementation(() => {
      throw new Error("no space is left on the device");
    });
    journal.listener(phase("iterating"));
    journal.listener(phase("switchover"));
    // A file that says "setup" of a migration that is further would be a lie.
    expect(readdirSync(path)).toEqual([]);
    expect(notices).toEqual([expect.stringContaining("no space is left on the device")]);
    write.mockRestore();
    journal.listener(phase("committed"));
    expect(inFile()).toMatchObject({ phase: "committed" });
    expect(notices).toHaveLength(1);
  });

  test("whose folder has been taken away is a notice, not an error", () => {
    rmSync(path, { recursive: true });
    open().listener(phase("committed"));
    expect(notices).toHaveLength(1);
  });
});

describe("what is found in a state folder", () => {
  test("a crash between write and rename leaves the old content, and the rest of the new is no entry", () => {
    open();
    writeFileSync(join(path, `.${FILE}.tmp`), '{"version":1,"sess');
    expect(known()).toMatchObject({ entries: [{ phase: "setup" }], ignored: [] });
    folder.remove(entryName(SUBJECT));
    expect(readdirSync(path)).toEqual([]);
  });

  test.each<[string, string]>([
    ["nothing", ""],
    ["no JSON", "\0\0\0\0"],
    ["another version", JSON.stringify({ version: 2 })],
    ["half a file", '{"version":1,"session":"0011'],
  ])("%s is ignored, and said so", (_what, content) => {
    open();
    writeFileSync(join(path, "junk.json"), content);
    const { entries, ignored } = known();
    expect(entries).toHaveLength(1);
    expect(ignored).toEqual([expect.stringMatching(/^junk: /)]);
  });

  test("a file that is too long is not read", () => {
    open();
    const text = readFileSync(join(path, FILE), "utf8");
    writeFileSync(join(path, FILE), text.padEnd(70_000));
    expect(known()).toMatchObject({ entries: [], ignored: [expect.stringContaining("longer than")] });
  });

  test("an entry under another's name is ignored", () => {
    open();
    writeFileSync(join(path, "ffffffffffffffffffffffffffffffff-source.json"), readFileSync(join(path, FILE)));
    expect(known()).toMatchObject({
      entries: [{}],
      ignored: [expect.stringContaining("do not belong together")],
    });
  });

  test("links, pipes and folders are ignored, and nobody waits for them", () => {
    open();
    renameSync(join(path, FILE), join(path, "..", "elsewhere"));
    symlinkSync(join(path, "..", "elsewhere"), join(path, FILE));
    spawnSync("mkfifo", [join(path, "pipe.json")]);
    mkdirSync(join(path, "folder.json"));
    const { entries, ignored } = known();
    expect(entries).toEqual([]);
    expect(ignored.map((text) => text.split(":")[0])).toEqual([entryName(SUBJECT), "folder", "pipe"]);
  });

  test.skipIf(process.getuid?.() !== 0)(
    "another user's file is ignored, another user's folder refused",
    () => {
      open();
      chownSync(join(path, FILE), 12_345, 12_345);
      expect(known()).toMatchObject({ entries: [], ignored: [expect.stringContaining("another user")] });
      chownSync(path, 12_345, 12_345);
      expect(() => StateFolder.find(path)).toThrow(UsageError);
    },
  );

  test("a folder to which others have access, or that is none, is refused", () => {
    chmodSync(path, 0o750);
    expect(() => StateFolder.create(path)).toThrow(/others have access/);
    expect(() => StateFolder.create(join(path, "..", "state", "..", "state"))).toThrow(UsageError);
    const file = join(path, "file");
    writeFileSync(file, "");
    expect(() => StateFolder.find(file)).toThrow(/it is no folder/);
    expect(() => StateFolder.create(join(file, "below"))).toThrow(UsageError);
  });

  test("a folder that is not there holds nothing", () => {
    expect(StateFolder.find(join(path, "nowhere"))).toBeUndefined();
    expect(knownMigrations(undefined)).toEqual({ entries: [], ignored: [] });
  });
});

test("the folder is root's, or the user's, whatever the environment holds", () => {
  expect(defaultStateFolder({ XDG_RUNTIME_DIR: "/run/user/0" }, 0)).toBe("/run/deltavee");
  expect(defaultStateFolder({ XDG_RUNTIME_DIR: "/run/user/1000" }, 1000)).toBe("/run/user/1000/deltavee");
  expect(defaultStateFolder({ XDG_RUNTIME_DIR: "relative" }, 1000)).toBe(join(tmpdir(), "deltavee-1000"));
  expect(defaultStateFolder({}, 1000)).toBe(join(tmpdir(), "deltavee-1000"));
});

describe("a process", () => {
  test("is itself as long as it lives", () => {
    expect(isAlive(ownIdentity())).toBe(true);
    const { pid } = spawnSync("true");
    expect(isAlive({ pid: pid! })).toBe(false);
  });

  test("that has got the id of another, or lives in another boot, is not that one", () => {
    const own = ownIdentity();
    expect(isAlive({ ...own, startTicks: own.startTicks! - 1 })).toBe(false);
    expect(isAlive({ ...own, bootId: "another" })).toBe(false);
  });
});
