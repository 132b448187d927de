// Client program: an application tier with many sessions at once, all on a Redis in the guest.

import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../../base/clock.ts";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";
import { Ledger } from "./ledger.ts";
import { RedisOrders } from "./order-database.ts";
import { epochNowMs, type Lab, runClient } from "./protocol.ts";
import { RedisConnection } from "./redis.ts";
import { Session, type SessionPorts } from "./session.ts";
import { TransactionLog } from "./transaction-log.ts";

const optionsSchema = v.object({
  host: v.string(),
  port: v.number(),
  sessions: v.pipe(v.integer(), v.minValue(1)),
  leaseMs: v.number(),
  timeoutMs: v.number(),
  thinkMs: v.number(),
  /** Groups of documents that are worked on, from the first. */
  groups: v.pipe(v.integer(), v.minValue(1)),
  documentsPerGroup: v.pipe(v.integer(), v.minValue(1)),
  documentBytes: v.integer(),
  changedBytes: v.integer(),
});

/** Steady: every session has begun, and has worked for a while. */
const STEADY_MS = 3000;
/** Groups whose documents are checked with one round trip. */
const CHECKED_AT_ONCE = 256;
/** Service is down after the move when nothing has been committed for so long at the end. */
const SERVICE_SILENT_MS = 2000;

const CLOCK: Clock = { nowMs: epochNowMs, after: systemClock.after };

async function work(lab: Lab): Promise<ClientView> {
  const options = v.parsed(optionsSchema, lab.options);
  const open = async () =>
    new RedisOrders(await RedisConnection.open(options, options.timeoutMs), options, Math.random);

  const beganMs = epochNowMs();
  const log = new TransactionLog(() => lab.phase, beganMs);
  const ledger = new Ledger(log);
  const ports: SessionPorts = {
    clock: CLOCK,
    open,
    ledger,
    nextGroup: () => Math.floor(Math.random() * options.groups),
  };
  const sessions = Array.from(
    { length: options.sessions },
    (_, number) => new Session(number, options, ports),
  );
  const runs: Promise<void>[] = [];
  for (const session of sessions) {
    runs.push(session.run());
    // Users do not come all at once, and do not think in step.
    await sleep(options.thinkMs / options.sessions);
  }
  await Promise.race([sleep(STEADY_MS), lab.finishing]);
  const steadyMs = epochNowMs();
  if (log.count === 0) throw new Error(`Nothing was committed: ${ledger.firstReason ?? "no answer in time"}`);
  lab.ready();

  await lab.finishing;
  const finishedMs = epochNowMs();
  const metrics = log.metrics({
    steadyMs,
    beganMs: lab.migrationBeganMs,
    endedMs: lab.migrationEndedMs,
    finishedMs,
  });
  const isDown = finishedMs - log.lastCommitMs > SERVICE_SILENT_MS;
  for (const session of sessions) session.end();
  await Promise.all(runs);
  const isChecked = await check(ledger, open);
  return viewOf({ ledger, log, metrics, isDown, isChecked });
}

/** Reads everything that was ever written. False: the database did not answer. */
async function check(ledger: Ledger, open: () => Promise<RedisOrders>): Promise<boolean> {
  try {
    const database = await open();
    const groups = ledger.writtenGroups;
    for (let at = 0; at < groups.length; at += CHECKED_AT_ONCE) {
      const some = groups.slice(at, at + CHECKED_AT_ONCE);
      const versions = await database.versions(some);
      for (const [index, group] of some.entries()) ledger.seen(group, versions[index]!);
    }
    database.close();
    return true;
  } catch {
    // Told as a failure of the view: that nobody answers is a finding.
    return false;
  }
}

function viewOf(found: {
  readonly ledger: Ledger;
  readonly log: TransactionLog;
  readonly metrics: Record<string, number>;
  readonly isDown: boolean;
  readonly isChecked: boolean;
}): ClientView {
  const { ledger, log, isDown, isChecked } = found;
  const metrics = {
    ...found.metrics,
    transactions: log.count,
    sessionsLost: ledger.sessionsLost,
    transactionsFailed: ledger.count("failed"),
    transactionsTimedOut: ledger.count("timed out"),
    leasesExpired: ledger.count("lease expired"),
    ...(isChecked ? { writesLost: ledger.writesLost } : {}),
  };
  const failures: string[] = [];
  const tell = (count: number, what: string) => {
    if (count > 0) failures.push(`${count} ${what}`);
  };
  tell(metrics.sessionsLost, "sessions lost");
  tell(metrics.transactionsTimedOut, "transactions timed out");
  tell(metrics.transactionsFailed, `transactions failed (${ledger.firstReason})`);
  tell(metrics.leasesExpired, "leases expired");
  tell(ledger.writesLost, "acknowledged writes lost");
  if (isDown) failures.push("the service was down after the move");
  if (!isChecked) failures.push("what was written could not be read again");
  return { metrics, failures, series: log.series() };
}

await runClient(work);
