// What the scenarios share whose users make transactions: the metrics that their clients give
// (src/lab/client/transaction-log.ts).

import type { Metric } from "../model.ts";

/** Transactions that came to no good end. */
export const FAILURES: readonly Metric[] = [
  { name: "transactionsTimedOut", title: "transactions timed out", unit: "", isLowerBetter: true },
  { name: "transactionsFailed", title: "transactions failed", unit: "", isLowerBetter: true },
];

/** How fast they were, before, during and after the migration, and how many there were. */
export const THROUGHPUT: readonly Metric[] = [
  { name: "throughputBefore", title: "transactions before", unit: "1/s", isLowerBetter: false },
  { name: "throughputDuring", title: "transactions during", unit: "1/s", isLowerBetter: false },
  { name: "throughputAfter", title: "transactions after", unit: "1/s", isLowerBetter: false },
  { name: "latencyMs99Before", title: "latency before (99 %)", unit: "ms", isLowerBetter: true },
  { name: "latencyMs99During", title: "latency during (99 %)", unit: "ms", isLowerBetter: true },
  { name: "latencyMs99After", title: "latency after (99 %)", unit: "ms", isLowerBetter: true },
  { name: "transactions", title: "transactions", unit: "", isLowerBetter: false, isJudged: false },
];
