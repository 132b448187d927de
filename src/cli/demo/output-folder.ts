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

/** "deltavee-report-2026-11-23-021530", by the clock on the wall. */
export function defaultFolderName(now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("");
  return `deltavee-report-${day}-${time}`;
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
    const why = toError(thrown).message;
    throw new UsageError(`Cannot create the folder ${absolute} for the report (--out): ${why}`);
  }
  if (held.length > 0) {
    throw new UsageError(`Will not write into ${absolute}, which is not empty: choose another --out`);
  }
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
