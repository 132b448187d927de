// What an application tier must be able to rely on, kept over all of its sessions: every write that was acknowledged
// is found again, and none that was refused. Beside it, what has failed. Knows no database and no time.

import type { TransactionLog } from "./transaction-log.ts";

/** Why a transaction has not been committed, as its user would say. */
export type Failure = "failed" | "timed out" | "lease expired";

export class Ledger {
  readonly #log: TransactionLog;
  /** Of each group that was ever written: the version that was acknowledged last. All others have 0. */
  readonly #acknowledged = new Map<number, number>();
  /** Groups of which the version after that may have been written as well. */
  readonly #unsure = new Set<number>();
  readonly #failures: Record<Failure, number> = { failed: 0, "timed out": 0, "lease expired": 0 };
  readonly #sessionsLost = new Set<number>();
  #writesLost = 0;
  #firstReason: string | undefined;

  constructor(log: TransactionLog) {
    this.#log = log;
  }

  get sessionsLost(): number {
    return this.#sessionsLost.size;
  }

  /** Groups of documents that are not as they were acknowledged. */
  get writesLost(): number {
    return this.#writesLost;
  }

  /** Of the first transaction that failed and did not time out: what the database or the connection said. */
  get firstReason(): string | undefined {
    return this.#firstReason;
  }

  get writtenGroups(): readonly number[] {
    return [...this.#acknowledged.keys()];
  }

  count(failure: Failure): number {
    return this.#failures[failure];
  }

  nextVersion(group: number): number {
    return (this.#acknowledged.get(group) ?? 0) + 1;
  }

  committed(group: number, startedMs: number, endedMs: number): void {
    this.#acknowledged.set(group, this.nextVersion(group));
    this.#unsure.delete(group);
    this.#log.committed(startedMs, endedMs);
  }

  failed(failure: Failure, reason?: string): void {
    this.#failures[failure]++;
    if (failure === "failed") this.#firstReason ??= reason;
  }

  /** The next version was sent, and whether it was written nobody has said. */
  unsure(group: number): void {
    this.#unsure.add(group);
    // So that it is looked at in the end, though nothing of it may ever have been acknowledged.
    this.#acknowledged.set(group, this.#acknowledged.get(group) ?? 0);
  }

  sessionLost(session: number): void {
    this.#sessionsLost.add(session);
  }

  /** Versions of a group's documents as they were read while nobody else could write them. */
  seen(group: number, versions: readonly number[]): void {
    const acknowledged = this.#acknowledged.get(group) ?? 0;
    const [version] = versions;
    const isWhole = version !== undefined && versions.every((other) => other === version);
    const isPossible = version === acknowledged || (this.#unsure.has(group) && version === acknowledged + 1);
    if (!isWhole || !isPossible) this.#writesLost++;
    // What was found is what counts from now on, so that one loss is not counted for ever.
    this.#unsure.delete(group);
    if (version !== undefined && Number.isSafeInteger(version) && version !== acknowledged) {
      this.#acknowledged.set(group, version);
    }
  }
}
