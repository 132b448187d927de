// One user's session of an application tier, as SAP's keeps them: a lease that must be renewed in time, transactions
// under a lock that has a lease of its own, and a time-out after which the user has been told that it failed. All
// judged by the tier's own clock. Knows no socket and no Redis.

import type { Clock } from "../../base/clock.ts";
import { toError } from "../../base/errors.ts";
import type { Ledger } from "./ledger.ts";
import type { OrderDatabase } from "./order-database.ts";

export interface SessionRules {
  /** Of a session and of a lock: what was not renewed for so long is lost. */
  readonly leaseMs: number;
  /** A transaction that takes longer has failed for its user. */
  readonly timeoutMs: number;
  /** Between two transactions of a session. */
  readonly thinkMs: number;
}

export interface SessionPorts {
  readonly clock: Clock;
  readonly open: () => Promise<OrderDatabase>;
  readonly ledger: Ledger;
  /** The group of documents that the user works on next. */
  readonly nextGroup: () => number;
}

class TimedOut extends Error {}

/** Before the next attempt of a user whose database cannot be reached. */
const RECONNECT_MS = 500;

export class Session {
  readonly #number: number;
  readonly #rules: SessionRules;
  readonly #ports: SessionPorts;
  #database: OrderDatabase | undefined;
  /** Until then the lease is ours whatever the database does; undefined when logged out. */
  #leaseEndsMs: number | undefined;
  #isEnding = false;
  /** Counts the transactions that were given up. */
  #attempt = 0;

  constructor(number: number, rules: SessionRules, ports: SessionPorts) {
    this.#number = number;
    this.#rules = rules;
    this.#ports = ports;
  }

  /** Works until it is told to `end`; never rejects: what goes wrong stands in the ledger. */
  async run(): Promise<void> {
    const { thinkMs } = this.#rules;
    while (!this.#isEnding) {
      const isWell = await this.#transaction();
      await this.#sleep(isWell ? thinkMs : RECONNECT_MS);
    }
    this.#judgeExpiry();
    this.#database?.close();
  }

  /** The transaction that is under way is finished. */
  end(): void {
    this.#isEnding = true;
  }

  /** False when the connection has been given up. */
  async #transaction(): Promise<boolean> {
    const { clock, ledger } = this.#ports;
    const startedMs = clock.nowMs();
    const group = this.#ports.nextGroup();
    let attempted: number | undefined;
    try {
      const outcome = await this.#within(this.#rules.timeoutMs, async () => {
        const database = await this.#loggedIn();
        const sentMs = clock.nowMs();
        const renewal = await database.renewAndLock(this.#number, group, this.#rules.leaseMs);
        this.#judgeLease(renewal.isSessionAlive, sentMs);
        if (!renewal.isSessionAlive) return "logged out";
        if (!renewal.isLocked) return "busy";
        const { hasLock, versions } = await database.read(this.#number, group);
        if (!hasLock) return "lease expired";
        ledger.seen(group, versions);
        attempted = ledger.nextVersion(group);
        return (await database.commit(this.#number, group, attempted)) ? "committed" : "lease expired";
      });
      if (outcome === "committed") ledger.committed(group, startedMs, clock.nowMs());
      else if (outcome === "lease expired") ledger.failed(outcome);
      return true;
    } catch (thrown) {
      // What was sent may be carried out all the same: nobody knows until the documents are read again.
      if (attempted !== undefined) ledger.unsure(group);
      ledger.failed(thrown instanceof TimedOut ? "timed out" : "failed", toError(thrown).message);
      this.#attempt++;
      this.#database?.close();
      this.#database = undefined;
      return false;
    }
  }

  /** A lease is lost when the database says so, or when its time had run out before it was renewed. */
  #judgeLease(isAlive: boolean, sentMs: number): void {
    const { clock, ledger } = this.#ports;
    const isOverdue = this.#leaseEndsMs !== undefined && clock.nowMs() > this.#leaseEndsMs;
    if (!isAlive || isOverdue) ledger.sessionLost(this.#number);
    this.#leaseEndsMs = isAlive ? sentMs + this.#rules.leaseMs : undefined;
  }

  /** A lease that has run out is lost, whether the database can be asked or not. */
  #judgeExpiry(): void {
    const { clock, ledger } = this.#ports;
    if (this.#leaseEndsMs === undefined || clock.nowMs() <= this.#leaseEndsMs) return;
    ledger.sessionLost(this.#number);
    this.#leaseEndsMs = undefined;
  }

  /** Opens and logs in where it must. */
  async #loggedIn(): Promise<OrderDatabase> {
    const { clock, open } = this.#ports;
    this.#judgeExpiry();
    this.#database ??= await this.#opened(open);
    this.#judgeExpiry();
    if (this.#leaseEndsMs === undefined) {
      const sentMs = clock.nowMs();
      await this.#database.logIn(this.#number, this.#rules.leaseMs);
      this.#leaseEndsMs = sentMs + this.#rules.leaseMs;
    }
    return this.#database;
  }

  /** A connection that comes after its transaction was given up is not used: the next one opens its own. */
  async #opened(open: () => Promise<OrderDatabase>): Promise<OrderDatabase> {
    const attempt = this.#attempt;
    const database = await open();
    if (attempt === this.#attempt) return database;
    database.close();
    throw new Error("The connection came too late");
  }

  #within<T>(timeoutMs: number, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const cancel = this.#ports.clock.after(timeoutMs, () => reject(new TimedOut()));
      work().then(resolve, reject).finally(cancel);
    });
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#ports.clock.after(ms, resolve));
  }
}
