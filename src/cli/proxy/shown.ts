// What both sides of `deltavee proxy` say: where they listen, and each migration like a command of its own.

import { join } from "node:path";
import type { Run } from "../../library/run.ts";
import { type Address, formatAddress } from "../../link/address.ts";
import type { RecordListener } from "../../record/writer.ts";
import { type DisplayOptions, openShownRun } from "../common.ts";
import { failureText } from "../failure.ts";

/** Of one migration, with a file of its own in the folder for run records, where there is one. */
export function openMigration(
  options: DisplayOptions,
  side: "source" | "destination",
  first: RecordListener[],
): Promise<Run> {
  const { record: folder, ...display } = options;
  if (folder === undefined) return openShownRun(display, ...first);
  const name = `${new Date().toISOString().replaceAll(/[:.]/g, "-")}-${side}.ndjson`;
  return openShownRun({ ...display, record: join(folder, name) }, ...first);
}

export function sayListening(address: Address, { json, quiet }: DisplayOptions): void {
  const text = formatAddress(address);
  if (json) process.stdout.write(`${JSON.stringify({ type: "listening", address: text })}\n`);
  else if (!quiet) process.stderr.write(`proxy: waiting on ${text}\n`);
}

/** Between migrations. */
export function sayNotice(text: string, { json, quiet }: DisplayOptions): void {
  if (json) process.stdout.write(`${JSON.stringify({ type: "notice", message: text })}\n`);
  else if (!quiet) process.stderr.write(`proxy: ${text}\n`);
}

export function sayFailure(error: Error): void {
  process.stderr.write(`${failureText(error)}\n`);
}
