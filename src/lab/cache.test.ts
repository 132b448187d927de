import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { cachedFolder, cacheKey } from "./cache.ts";
import { tempFolder } from "./host-process.ts";

const folder = tempFolder();
afterAll(() => folder.remove());

/** Of a process that is no more. */
const deadPid = (): string => execFileSync("sh", ["-c", "echo $$"], { encoding: "utf8" }).trim();

describe("the cache's key", () => {
  it("differs with each part, and with where one ends and the next begins", () => {
    const keys = [["a", "b"], ["ab"], ["a", "c"], ["b", "a"], ["a", "b", ""]].map((parts) => cacheKey(parts));
    expect(new Set(keys).size).toBe(keys.length);
    expect(cacheKey(["a", Buffer.from("b")])).toBe(keys[0]);
  });
});

describe("a folder of the cache", () => {
  it("is made once, and all that want it meanwhile get the same", async () => {
    let made = 0;
    const make = async (path: string) => {
      made++;
      await new Promise((resolve) => setTimeout(resolve, 50));
      writeFileSync(join(path, "file"), "whole");
    };
    const paths = await Promise.all([1, 2, 3].map(() => cachedFolder("once", make, folder.path)));
    expect(new Set(paths).size).toBe(1);
    expect(made).toBe(1);
    expect(readFileSync(join(paths[0]!, "file"), "utf8")).toBe("whole");
  });

  it("is not there when making it failed, and is made anew then", async () => {
    const failing = cachedFolder(
      "fails",
      async (path) => {
        writeFileSync(join(path, "file"), "half");
        throw new Error("no more disk");
      },
      folder.path,
    );
    await expect(failing).rejects.toThrow("no more disk");
    expect(readdirSync(folder.path).filter((name) => name.startsWith("fails"))).toEqual([]);
    const path = await cachedFolder("fails", async () => {}, folder.path);
    expect(existsSync(path)).toBe(true);
  });

  it("does not wait for a maker that was killed, and clears away what that one left", async () => {
    const left = join(folder.path, `crashed.making-${deadPid()}-folder`);
    mkdirSync(left);
    await cachedFolder("crashed", async () => {}, folder.path);
    expect(existsSync(left)).toBe(false);
  });
});
