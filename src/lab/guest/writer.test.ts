// What the lab's writer (lab/guest/writer.c) claims of itself, and every sweep over bytes per page relies on: compiled for
// this host with a main program that looks at its memory after each write.

import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { type TempFolder, tempFolder } from "../host-process.ts";

const SOURCE = join(PACKAGE_ROOT, "test/support/writer-check.c");
/** The writer's own main never ends, and is not called here. */
const OPTIONS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-return-type"];
const PAGES_WRITTEN = 4 * 96;

const hasCompiler = process.platform === "linux" && spawnSync("gcc", ["--version"]).status === 0;

describe.skipIf(!hasCompiler)("the writer in the guest", () => {
  let folder: TempFolder;
  let program: string;
  beforeAll(() => {
    folder = tempFolder();
    program = join(folder.path, "writer-check");
    execFileSync("gcc", [...OPTIONS, "-o", program, SOURCE]);
  });
  afterAll(() => folder.remove());

  const kinds = ["random", "text"].flatMap((kind) => ["run", "scattered"].map((spread) => [kind, spread]));
  test.each(kinds)(
    "changes as many bytes of each page as told, %s and %s, in every page once before any again, and knows each of them",
    (kind, spread) => {
      for (const bytesPerPage of [1, 3, 64, 1000, 4095, 4096]) {
        const said = execFileSync(program, [`${bytesPerPage}`, kind!, spread!], { encoding: "utf8" });
        expect(`${bytesPerPage}: ${said}`).toBe(
          `${bytesPerPage}: pagesWritten=${PAGES_WRITTEN} otherCount=0 otherPlace=0 otherPage=0 repeated=0 damaged=0 ` +
            "missed=0\n",
        );
      }
    },
  );
});
