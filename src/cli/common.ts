// What several commands share: the QMP address of a VM, signals, and how a run is shown while it works.

import { systemClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { parseAddress } from "../link/address.ts";
import { type OpenRunRecord, openRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";
import { ProgressDisplay } from "../report/progress.ts";
import { summaryText } from "../report/summary.ts";
import type { LivePage } from "../web/live-page.ts";
import { RunBoard } from "../web/run-board.ts";
import { livePageText, openLivePage, type UiAddress } from "./live-page.ts";

/** How long a broken connection of a tunnel is tried to be resumed, or waited for. */
export const RECONNECT_MS_DEFAULT = 60_000;

export const PLAINTEXT_NOTICE =
  "INSECURE: without TLS everybody on the way can read and change the guest's memory (--insecure-plaintext)";

export interface DisplayOptions {
  record?: string;
  json?: true;
  quiet?: true;
  ui?: UiAddress;
}

/** A monitor's address: a socket's path as it is, or unix:PATH, or tcp:HOST:PORT. @throws UsageError */
export function parseQmpAddress(text: string): QmpAddress {
  // A socket's path is what people have at hand: everything that names no port is taken for one.
  const isPath = !text.startsWith("unix:") && !/:\d+$/.test(text);
  const address = parseAddress(isPath ? `unix:${text}` : text);
  if (address.kind === "deltavee") throw new UsageError(`Not a QMP socket: "${text}"`);
  return address;
}

export interface ShownRun extends OpenRunRecord {
  /** Prints what is to be said at the end and closes the record. */
  finish(): Promise<void>;
}

/**
 * A run record that is shown as asked: one live line and a summary, JSON events, or nothing; on a live page, too, where
 * that is wished. `others` come first. @throws UsageError where the record or the page cannot be opened
 */
export async function openShownRun(options: DisplayOptions, ...others: RecordListener[]): Promise<ShownRun> {
  const shown: RecordEvent[] = [];
  const listeners: RecordListener[] = others;
  if (options.json) listeners.push((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
  else if (!options.quiet) listeners.push(new ProgressDisplay(process.stderr).listener);
  const board = new RunBoard();
  const feed = board.open();
  if (options.ui !== undefined) listeners.push(feed.event);
  const run = await openRunRecord({ clock: systemClock, path: options.record, listeners });
  let page: LivePage | undefined;
  try {
    page = await openPage(options, board);
  } catch (thrown) {
    await run.close();
    throw thrown;
  }
  return {
    record: run.record,
    async close() {
      feed.end();
      await page?.close();
      return run.close();
    },
    async finish() {
      shown.push(...run.record.events);
      if (!options.json && !options.quiet) process.stdout.write(`${summaryText(shown)}\n`);
      const incomplete = await run.close();
      if (incomplete !== undefined) process.stderr.write(`deltavee: ${incomplete}\n`);
    },
  };
}

async function openPage(options: DisplayOptions, board: RunBoard): Promise<LivePage | undefined> {
  if (options.ui === undefined) return undefined;
  const page = await openLivePage(options.ui, board, (message) => {
    process.stderr.write(`deltavee: ${message}\n`);
  });
  if (options.json) process.stdout.write(`${JSON.stringify({ type: "page", url: page.url })}\n`);
  if (!options.json && !options.quiet) process.stderr.write(livePageText(page));
  else if (page.warning !== undefined) process.stderr.write(`${page.warning}\n`);
  return page;
}

const INTERRUPTS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Calls `cancel` on Ctrl-C or SIGTERM, or when the terminal goes away; further signals are ignored, since giving a
 * VM up half way takes a moment and must not be cut short. The returned function lets go of the signals.
 */
export function onInterrupt(cancel: () => void): () => void {
  let asked = false;
  const handler = () => {
    if (asked) return;
    asked = true;
    cancel();
  };
  for (const signal of INTERRUPTS) process.on(signal, handler);
  return () => {
    for (const signal of INTERRUPTS) process.off(signal, handler);
  };
}
