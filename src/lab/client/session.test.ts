import { describe, expect, it } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import { Ledger } from "./ledger.ts";
import type { OrderDatabase, Renewal } from "./order-database.ts";
import { Session, type SessionRules } from "./session.ts";
import { TransactionLog } from "./transaction-log.ts";

const RULES: SessionRules = { leaseMs: 5000, timeoutMs: 5000, thinkMs: 100 };
const ANSWER_MS = 5;
const DOCUMENTS_PER_GROUP = 2;

/** A server that can be stopped: what is asked meanwhile is done and answered afterwards, though the client has gone. */
class FakeServer {
  readonly clock: VirtualClock;
  readonly sessions = new Map<number, number>();
  readonly locks = new Map<number, { owner: number; endsMs: number }>();
  readonly versions = new Map<number, number>();
  stoppedUntilMs = 0;
  #stoodStillMs = 0;
  refusesConnections = false;
  /** Carries a commit out and hangs up before it says so. */
  swallowsCommits = 0;

  constructor(clock: VirtualClock) {
    this.clock = clock;
  }

  async open(): Promise<OrderDatabase> {
    if (this.refusesConnections) throw new Error("connection refused");
    return new FakeConnection(this);
  }

  stop(ms: number): void {
    this.stoppedUntilMs = this.clock.nowMs() + ms;
    this.#stoodStillMs += ms;
  }

  /** The guest's own clock, which says nothing of the time for which it stood still: nor do leases run out in it. */
  nowMs(): number {
    return this.clock.nowMs() - this.#stoodStillMs;
  }

  endOfLease(leaseMs: number): number {
    return this.nowMs() + leaseMs;
  }

  lockOf(group: number): number | undefined {
    const lock = this.locks.get(group);
    return lock !== undefined && lock.endsMs > this.nowMs() ? lock.owner : undefined;
  }
}

class FakeConnection implements OrderDatabase {
  readonly #server: FakeServer;
  #reject: ((error: Error) => void) | undefined;

  constructor(server: FakeServer) {
    this.#server = server;
  }

  logIn(session: number, leaseMs: number): Promise<void> {
    return this.#answer(() => void this.#server.sessions.set(session, this.#server.endOfLease(leaseMs)));
  }

  renewAndLock(session: number, group: number, leaseMs: number): Promise<Renewal> {
    return this.#answer(() => {
      const server = this.#server;
      const isSessionAlive = (server.sessions.get(session) ?? 0) > server.nowMs();
      if (isSessionAlive) server.sessions.set(session, server.endOfLease(leaseMs));
      const isLocked = server.lockOf(group) === undefined;
      if (isLocked) server.locks.set(group, { owner: session, endsMs: server.endOfLease(leaseMs) });
      return { isSessionAlive, isLocked };
    });
  }

  read(session: number, group: number): Promise<{ hasLock: boolean; versions: number[] }> {
    return this.#answer(() => ({
      hasLock: this.#server.lockOf(group) === session,
      versions: Array(DOCUMENTS_PER_GROUP).fill(this.#server.versions.get(group) ?? 0),
    }));
  }

  commit(session: number, group: number, version: number): Promise<boolean> {
    return this.#answer(() => {
      const server = this.#server;
      if (server.lockOf(group) !== session) return false;
      server.versions.set(group, version);
      server.locks.delete(group);
      if (server.swallowsCommits > 0) {
        server.swallowsCommits--;
        throw new Error("connection reset");
      }
      return true;
    });
  }

  async versions(groups: readonly number[]): Promise<number[][]> {
    return groups.map((group) => [this.#server.versions.get(group) ?? 0]);
  }

  close(): void {
    this.#reject?.(new Error("closed"));
  }

  #answer<T>(act: () => T): Promise<T> {
    const { clock, stoppedUntilMs } = this.#server;
    const waitMs = Math.max(ANSWER_MS, stoppedUntilMs - clock.nowMs());
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      clock.after(waitMs, () => {
        try {
          resolve(act());
        } catch (thrown) {
          reject(thrown);
        }
      });
    });
  }
}

function tier({ sessions = 3, rules = RULES, groups = 50 } = {}) {
  const clock = new VirtualClock();
  const server = new FakeServer(clock);
  const log = new TransactionLog(() => "during", clock.nowMs());
  const ledger = new Ledger(log);
  let group = 0;
  const ports = { clock, ledger, open: () => server.open(), nextGroup: () => group++ % groups };
  const all = Array.from({ length: sessions }, (_, number) => new Session(number, rules, ports));
  for (const session of all) void session.run();
  /** Millisecond by millisecond: what one answer sets off is asked before time goes on. */
  const advance = async (ms: number) => {
    for (let done = 0; done < ms; done++) {
      await settle();
      clock.advance(1);
    }
    await settle();
  };
  return { clock, server, log, ledger, advance };
}

/** Promises that are fulfilled have been acted upon, and what that has fulfilled too. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function troubles(ledger: Ledger) {
  const { sessionsLost, writesLost } = ledger;
  const [failed, timedOut, expired] = [
    ledger.count("failed"),
    ledger.count("timed out"),
    ledger.count("lease expired"),
  ];
  return { sessionsLost, writesLost, failed, timedOut, expired };
}

const NONE = { sessionsLost: 0, writesLost: 0, failed: 0, timedOut: 0, expired: 0 };

describe("a session", () => {
  it("works on and keeps its lease as long as the database answers", async () => {
    const { advance, ledger, log } = tier();
    await advance(12_000);
    expect(troubles(ledger)).toEqual(NONE);
    // Three sessions, each with some 115 ms for a transaction and a thought.
    expect(log.count).toBeGreaterThan(250);
  });

  it("survives a standstill that is shorter than its time-outs", async () => {
    const { advance, ledger, log, server } = tier();
    await advance(2000);
    server.stop(4500);
    await advance(4500);
    const before = log.count;
    await advance(2000);
    expect(troubles(ledger)).toEqual(NONE);
    expect(log.count).toBeGreaterThan(before);
  });

  it("is lost by a standstill that is longer, its user is told in time, and logs in again afterwards", async () => {
    const { advance, ledger, log, server } = tier();
    await advance(2000);
    server.stop(7000);
    await advance(RULES.timeoutMs + RULES.thinkMs + 10);
    expect(ledger.count("timed out")).toBe(3);
    await advance(4000);
    expect(troubles(ledger)).toEqual({ ...NONE, sessionsLost: 3, timedOut: 3 });
    const before = log.count;
    await advance(2000);
    expect(log.count).toBeGreaterThan(before + 20);
    expect(ledger.sessionsLost).toBe(3);
  });

  it("is lost by a database that is not heard of again", async () => {
    const { advance, ledger, server } = tier();
    await advance(2000);
    server.stop(60_000);
    server.refusesConnections = true;
    await advance(RULES.leaseMs + RULES.timeoutMs);
    expect(troubles(ledger)).toMatchObject({ sessionsLost: 3, timedOut: 3 });
  });

  it("loses its lease though no transaction times out, where the lease is the shorter of the two", async () => {
    const { advance, ledger, server } = tier({ rules: { ...RULES, leaseMs: 1000 } });
    await advance(1500);
    server.stop(2000);
    await advance(4000);
    expect(troubles(ledger)).toMatchObject({ sessionsLost: 3, timedOut: 0 });
  });

  it("has lost a lease that was renewed too late, though the server, which stood still, knows nothing of it", async () => {
    const { advance, ledger, log, server } = tier({
      sessions: 1,
      rules: { ...RULES, leaseMs: 1000, thinkMs: 400 },
    });
    const committed = async () => {
      for (const count = log.count; log.count === count; ) await advance(1);
    };
    await advance(1000);
    await committed();
    server.stop(1100);
    // Found by the renewal itself: there may be no other transaction that would find it.
    await committed();
    expect(ledger.sessionsLost).toBe(1);
    await advance(3000);
    expect(troubles(ledger)).toEqual({ ...NONE, sessionsLost: 1 });
  });

  it("fails its transaction, and no more, when the lock went to somebody else meanwhile", async () => {
    const { advance, ledger, server } = tier({ sessions: 1, groups: 1 });
    await advance(103);
    await settle();
    // Between lock and commit of the transaction that is under way.
    while (server.lockOf(0) !== 0) await advance(1);
    server.locks.set(0, { owner: 99, endsMs: server.endOfLease(300) });
    await advance(1000);
    expect(troubles(ledger)).toEqual({ ...NONE, expired: 1 });
  });

  it("whose connections are refused goes on trying, and says why", async () => {
    const { advance, ledger, server, log } = tier({ sessions: 1 });
    server.refusesConnections = true;
    await advance(3000);
    expect(ledger.count("failed")).toBe(0);
    // The connection that there was is still good; a server that hangs up makes it open another.
    server.swallowsCommits = 1;
    await advance(3000);
    expect(ledger.count("failed")).toBeGreaterThan(3);
    expect(ledger.firstReason).toBe("connection reset");
    server.refusesConnections = false;
    const before = log.count;
    await advance(2000);
    expect(log.count).toBeGreaterThan(before);
  });

  it("does not call lost what a commit without an answer has written or not", async () => {
    const { advance, ledger, server } = tier({ sessions: 1, groups: 3 });
    await advance(1000);
    server.swallowsCommits = 2;
    await advance(5000);
    expect(troubles(ledger)).toEqual({ ...NONE, failed: 2 });
  });

  it("finds out when an acknowledged write is gone", async () => {
    const { advance, ledger, server } = tier({ sessions: 1, groups: 3 });
    await advance(2000);
    expect(ledger.writesLost).toBe(0);
    server.versions.set(1, server.versions.get(1)! - 1);
    await advance(1000);
    expect(ledger.writesLost).toBe(1);
  });
});
