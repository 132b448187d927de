import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isLeftover, ownedName, ownedTempFolder, removeLeftoverFolders } from "./ownership.ts";

const PREFIX = "deltavee-test-";
const deadPid = (): string => execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }).trim();

describe("a name with an owner", () => {
  it("is a leftover when its owner is no more", () => {
    expect(isLeftover(`${PREFIX}${deadPid()}-source`, PREFIX)).toBe(true);
    expect(isLeftover(`${PREFIX}${process.ppid}-source`, PREFIX)).toBe(false);
  });

  it("of this process is none, but one with its pid that it did not make is", () => {
    expect(isLeftover(ownedName(PREFIX, "source"), PREFIX)).toBe(false);
    expect(isLeftover(`${PREFIX}${process.pid}-of-an-earlier-process`, PREFIX)).toBe(true);
  });

  it("is not any name that looks a little like it", () => {
    for (const name of [
      "source",
      PREFIX,
      `${PREFIX}source`,
      `${PREFIX}12x-source`,
      `other-${deadPid()}-source`,
    ]) {
      expect(isLeftover(name, PREFIX), name).toBe(false);
    }
  });
});

describe("temporary folders", () => {
  it("of killed runs are removed, and those in use are not", () => {
    const own = ownedTempFolder();
    const left = mkdtempSync(join(tmpdir(), `deltavee-lab-${deadPid()}-`));
    removeLeftoverFolders();
    expect(existsSync(left)).toBe(false);
    expect(existsSync(own.path)).toBe(true);
    own.remove();
    expect(existsSync(own.path)).toBe(false);
  });
});
