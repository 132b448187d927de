// What several commands share: the QMP address of a VM, signals, and how a run is shown while it works.

import { systemClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { parseAddress } from "../link/address.ts";
import { type OpenRunRecord, openRunRecord } from "../record/file.ts";
import type { RecordEvent } from "../record/schema.ts";
import type { RecordListener } from "../record/writer.ts";

/** How long a broken connection of a tunnel is tried to be resumed, or waited for. */
export const RECONNECT_MS_DEFAULT = 60_000;

export const PLAINTEXT_NOTICE =
  "INSECURE: without TLS everybody on the way can read and change the guest's memory (--insecure-plaintext)";

export interface DisplayOptions {
  record?: string;
  json?: true;
  quiet?: true;
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
 * A run record that is shown as asked: one live line and a summary, JSON events, or nothing. `others` come first. What
 * shows it is loaded where it is asked for.
 */
export async function openShownRun(options: DisplayOptions, ...others: RecordListener[]): Promise<ShownRun> {
  const shown: RecordEvent[] = [];
  const listeners: RecordListener[] = others;
  if (options.json) listeners.push((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
  else if (!options.quiet) {
    const { ProgressDisplay } = await import("../report/progress.ts");
    listeners.push(new ProgressDisplay(process.stderr).listener);
  }
  const run = await openRunRecord({ clock: systemClock, path: options.record, listeners });
  return {
    ...run,
    async finish() {
      shown.push(...run.record.events);
      if (!options.json && !options.quiet) {
        const { summaryText } = await import("../report/summary.ts");
        process.stdout.write(`${summaryText(shown)}\n`);
      }
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
