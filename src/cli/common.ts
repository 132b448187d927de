// What several commands share: signals, and how a run is shown while it works.

import { systemClock } from "../base/clock.ts";
import type { Run } from "../library/run.ts";
import { openRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";
import { ProgressDisplay } from "../report/progress.ts";
import { summaryText } from "../report/summary.ts";

export interface DisplayOptions {
  record?: string;
  json?: true;
  quiet?: true;
}

/** A run record that is shown as asked: one live line and a summary, JSON events, or nothing. `others` come first. */
export async function openShownRun(options: DisplayOptions, ...others: RecordListener[]): Promise<Run> {
  const shown: RecordEvent[] = [];
  const listeners: RecordListener[] = others;
  if (options.json) listeners.push((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
  else if (!options.quiet) listeners.push(new ProgressDisplay(process.stderr).listener);
  const run = await openRunRecord({ clock: systemClock, path: options.record, listeners });
  return {
    ...run,
    async finish() {
      shown.push(...run.record.events);
      if (!options.json && !options.quiet) process.stdout.write(`${summaryText(shown)}\n`);
      const incomplete = await run.close();
      if (incomplete !== undefined) process.stderr.write(`deltavee: ${incomplete}\n`);
    },
  };
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
