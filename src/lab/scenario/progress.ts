// What the scenarios share whose work is done by a program in the guest that says how far it has come
// (lab/guest/progress.h): its port, its client and the metrics that this client gives.

import type { ProgressOptions } from "../client/progress-watch.ts";
import type { Client, Metric, Stage } from "../model.ts";

export const PROGRESS_PORT = 7101;

export const READY_TIMEOUT_MS = 90_000;
/** The view after a migration. */
export const AFTER_MS = 5000;

export function startProgress(
  stage: Stage,
  options: Omit<ProgressOptions, "address" | "port">,
): Promise<Client> {
  return stage.startClient("progress", { address: stage.guestAddress, port: PROGRESS_PORT, ...options });
}

/** First what users notice: how long nothing is done for them. */
export function throughputMetrics({
  title,
  unit,
}: {
  readonly title: string;
  readonly unit: string;
}): Metric[] {
  return [
    { name: "serviceDownMs", title: "longest standstill", unit: "ms", isLowerBetter: true },
    { name: "throughputBefore", title: `${title} before`, unit, isLowerBetter: false },
    { name: "throughputDuring", title: `${title} during`, unit, isLowerBetter: false },
    { name: "throughputAfter", title: `${title} after`, unit, isLowerBetter: false },
  ];
}
