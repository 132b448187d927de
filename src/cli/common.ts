// What several commands share: signals, and how a run is shown while it works.

import { systemClock } from "../base/clock.ts";
import type { Run } from "../library/run.ts";
import { openRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";
import type { LivePage } from "../web/live-page.ts";
import type { RunBoard } from "../web/run-board.ts";
import { livePageText, openLivePage, type UiAddress } from "./live-page.ts";

export interface DisplayOptions {
  record?: string;
  json?: true;
  quiet?: true;
  ui?: UiAddress;
}

/**
 * A run record that is shown as asked: one live line and a summary, JSON events, or nothing; on a live page, too, where
 * that is wished. `others` come first. @throws UsageError where the record or the page cannot be opened
 */
export async function openShownRun(options: DisplayOptions, ...others: RecordListener[]): Promise<Run> {
  const shown: RecordEvent[] = [];
  const listeners: RecordListener[] = others;
  const display = options.json || options.quiet ? undefined : await loadDisplay();
  if (options.json) listeners.push((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
  if (display !== undefined) listeners.push(new display.ProgressDisplay(process.stderr).listener);
  const board = options.ui === undefined ? undefined : await newBoard();
  const feed = board?.open();
  if (feed !== undefined) listeners.push(feed.event);
  const run = await openRunRecord({ clock: systemClock, path: options.record, listeners });
  let page: LivePage | undefined;
  try {
    page = board && (await openPage(options, board));
  } catch (thrown) {
    await run.close();
    throw thrown;
  }
  return {
    record: run.record,
    async close() {
      feed?.end();
      await page?.close();
      return run.close();
    },
    async finish() {
      shown.push(...run.record.events);
      if (display !== undefined) process.stdout.write(`${display.summaryText(shown)}\n`);
      const incomplete = await run.close();
      if (incomplete !== undefined) process.stderr.write(`deltavee: ${incomplete}\n`);
    },
  };
}

/** Only where it is asked for; but the end's now, too: when it comes, another Deltavee may have been installed. */
async function loadDisplay() {
  const [{ ProgressDisplay }, { summaryText }] = await Promise.all([
    import("../report/progress.ts"),
    import("../report/summary.ts"),
  ]);
  return { ProgressDisplay, summaryText };
}

/** Loaded only where it is asked for, as is the page's server (live-page.ts). */
export async function newBoard(): Promise<RunBoard> {
  const { RunBoard } = await import("../web/run-board.ts");
  return new RunBoard();
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

/** Aborted on Ctrl-C and its like (onInterrupt) from now on, until `release`. */
export function interruption(): { signal: AbortSignal; release: () => void } {
  const interrupted = new AbortController();
  return { signal: interrupted.signal, release: onInterrupt(() => interrupted.abort()) };
}
