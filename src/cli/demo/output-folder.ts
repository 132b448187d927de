// Where the demo leaves what came of it: a fresh folder, so that nothing is ever overwritten.

import { mkdir, readdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { toError, UsageError } from "../../base/errors.ts";

export interface OutputFolder {
  readonly path: string;
  readonly reportPath: string;
  recordPath(label: string): string;
  isEmpty(): Promise<boolean>;
  /** Takes back everything: the folder too, unless it was there before. */
  discard(): Promise<void>;
}

/** Demos that begin in one second in one folder: nobody begins more. */
const SAME_SECOND_MAX = 100;

/** "deltavee-report-2026-11-23-021530", by the clock on the wall. */
function defaultFolderName(now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("");
  return `deltavee-report-${day}-${time}`;
}

/** One that nobody else has, also where another demo began in the same second. @throws UsageError if it cannot be had */
export async function createDefaultFolder(parent: string, now: Date): Promise<OutputFolder> {
  const name = join(resolve(parent), defaultFolderName(now));
  for (let number = 1; number <= SAME_SECOND_MAX; number++) {
    const path = number === 1 ? name : `${name}-${number}`;
    try {
      await mkdir(path);
      return outputFolder(path, true);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw cannotCreate(path, thrown);
    }
  }
  throw new UsageError(
    `${name} and ${SAME_SECOND_MAX - 1} more like it are there already: name one by --out`,
  );
}

/** @throws UsageError if it cannot be had, or holds something already */
export async function createOutputFolder(path: string): Promise<OutputFolder> {
  const absolute = resolve(path);
  let isNew: boolean;
  let held: string[];
  try {
    isNew = (await mkdir(absolute, { recursive: true })) !== undefined;
    held = await readdir(absolute);
  } catch (thrown) {
    throw cannotCreate(absolute, thrown);
  }
  if (held.length > 0) {
    throw new UsageError(`Will not write into ${absolute}, which is not empty: choose another --out`);
  }
  return outputFolder(absolute, isNew);
}

function cannotCreate(path: string, thrown: unknown): UsageError {
  return new UsageError(
    `Cannot create the folder ${path} for the report (--out): ${toError(thrown).message}`,
  );
}

function outputFolder(absolute: string, isNew: boolean): OutputFolder {
  return {
    path: absolute,
    reportPath: join(absolute, "report.html"),
    recordPath: (label) => join(absolute, `${label}.ndjson`),
    isEmpty: async () => (await readdir(absolute)).length === 0,
    async discard() {
      const mine = isNew ? [absolute] : (await readdir(absolute)).map((name) => join(absolute, name));
      for (const name of mine) await rm(name, { recursive: true, force: true });
    },
  };
}
