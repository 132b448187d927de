// Client program: pgbench's transactions on a PostgreSQL in the guest, from outside, by several clients at once; what
// was acknowledged is looked for in the end. Tables: those of `pgbench -i`
// (https://www.postgresql.org/docs/15/pgbench.html, "What is the Transaction Actually Performed in pgbench?").

import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import { toError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";
import { epochNowMs, type Lab, runClient } from "./protocol.ts";
import { TransactionLog } from "./transaction-log.ts";

const optionsSchema = v.object({
  host: v.string(),
  port: v.number(),
  clients: v.pipe(v.integer(), v.minValue(1)),
  /** Of `pgbench -i -s`: so many hundred thousand accounts. */
  scale: v.pipe(v.integer(), v.minValue(1)),
  /** Accounts that one transaction changes: 1 is pgbench's own TPC-B. */
  rows: v.pipe(v.integer(), v.minValue(1)),
  /** Off: the server acknowledges before the disk has it. */
  isSynchronous: v.boolean(),
  timeoutMs: v.number(),
});

type Options = v.InferOutput<typeof optionsSchema>;
type Sql = postgres.Sql;

const ACCOUNTS_PER_BRANCH = 100_000;
const TELLERS_PER_BRANCH = 10;
const STEADY_MS = 5000;
const RECONNECT_MS = 500;
/** Service is down after the move when nothing has been committed for so long at the end. */
const SERVICE_SILENT_MS = 5000;

/** What all clients together have been told, and what went wrong. */
interface Books {
  readonly log: TransactionLog;
  isEnding: boolean;
  failed: number;
  timedOut: number;
  firstReason: string | undefined;
}

async function work(lab: Lab): Promise<ClientView> {
  const options = v.parsed(optionsSchema, lab.options);
  const books: Books = {
    log: new TransactionLog(() => lab.phase, epochNowMs()),
    isEnding: false,
    failed: 0,
    timedOut: 0,
    firstReason: undefined,
  };
  const clients = Array.from({ length: options.clients }, () => runTransactions(options, books));
  await Promise.race([sleep(STEADY_MS), lab.finishing]);
  const steadyMs = epochNowMs();
  if (books.log.count === 0)
    throw new Error(`Nothing was committed: ${books.firstReason ?? "no answer in time"}`);
  lab.ready();

  await lab.finishing;
  const finishedMs = epochNowMs();
  const { migrationBeganMs: beganMs, migrationEndedMs: endedMs } = lab;
  const ofPhases = books.log.metrics({ steadyMs, beganMs, endedMs, finishedMs });
  const isDown = finishedMs - books.log.lastCommitMs > SERVICE_SILENT_MS;
  // What is under way may still fail.
  books.isEnding = true;
  await Promise.all(clients);
  const metrics: Record<string, number> = {
    ...ofPhases,
    transactions: books.log.count,
    transactionsFailed: books.failed,
    transactionsTimedOut: books.timedOut,
  };
  const failures: string[] = [];
  if (books.timedOut > 0) failures.push(`${books.timedOut} transactions timed out`);
  if (books.failed > 0) failures.push(`${books.failed} transactions failed (${books.firstReason})`);
  if (isDown) failures.push("the service was down after the move");

  try {
    const { writesLost, isBalanced } = await audit(options, books.log.count);
    metrics.writesLost = writesLost;
    if (writesLost > 0) failures.push(`${writesLost} acknowledged transactions lost`);
    if (!isBalanced) failures.push("the books do not balance");
  } catch (thrown) {
    failures.push(`what was written could not be read again (${toError(thrown).message})`);
  }
  return { metrics, failures, series: books.log.series() };
}

/** One client of the bank. Never rejects: what goes wrong stands in the books. */
async function runTransactions(options: Options, books: Books): Promise<void> {
  let sql = open(options);
  while (!books.isEnding) {
    const startedMs = epochNowMs();
    const timeOut = new AbortController();
    const late = sleep(options.timeoutMs, "late" as const, { signal: timeOut.signal }).catch(
      () => "late" as const,
    );
    try {
      const transaction = transact(sql, options);
      // When it is late nobody waits for it any more, and it may fail as it likes.
      transaction.catch(() => {});
      const outcome = await Promise.race([transaction, late]);
      if (outcome === "committed") {
        books.log.committed(startedMs, epochNowMs());
        continue;
      }
      books.timedOut++;
    } catch (thrown) {
      books.failed++;
      books.firstReason ??= toError(thrown).message;
    } finally {
      timeOut.abort();
    }
    void sql.end({ timeout: 0 });
    await sleep(RECONNECT_MS);
    sql = open(options);
  }
  await sql.end({ timeout: 1 });
}

async function transact(sql: Sql, { scale, rows, isSynchronous }: Options): Promise<"committed"> {
  const branch = 1 + below(scale);
  const teller = 1 + below(scale * TELLERS_PER_BRANCH);
  const account = 1 + below(scale * ACCOUNTS_PER_BRANCH - rows + 1);
  const delta = below(10_001) - 5000;
  await sql.begin(async (step) => {
    if (!isSynchronous) await step`SET LOCAL synchronous_commit TO off`;
    await step`
      UPDATE pgbench_accounts SET abalance = abalance + ${delta}
      WHERE aid BETWEEN ${account} AND ${account + rows - 1}`;
    await step`SELECT abalance FROM pgbench_accounts WHERE aid = ${account}`;
    await step`UPDATE pgbench_tellers SET tbalance = tbalance + ${delta} WHERE tid = ${teller}`;
    await step`UPDATE pgbench_branches SET bbalance = bbalance + ${delta} WHERE bid = ${branch}`;
    await step`
      INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
      VALUES (${teller}, ${branch}, ${account}, ${delta}, CURRENT_TIMESTAMP)`;
  });
  return "committed";
}

/** The history has a row for each transaction; accounts, tellers and branches have changed by the same sum. */
async function audit(
  options: Options,
  committed: number,
): Promise<{ writesLost: number; isBalanced: boolean }> {
  const sql = open(options);
  try {
    const [sums] = await sql<[Record<"rows" | "deltas" | "tellers" | "branches" | "accounts", number>]>`
      SELECT (SELECT count(*) FROM pgbench_history)::float8 AS rows,
             (SELECT coalesce(sum(delta), 0) FROM pgbench_history)::float8 AS deltas,
             (SELECT sum(tbalance) FROM pgbench_tellers)::float8 AS tellers,
             (SELECT sum(bbalance) FROM pgbench_branches)::float8 AS branches,
             (SELECT sum(abalance) FROM pgbench_accounts)::float8 AS accounts`;
    const { rows, deltas, tellers, branches, accounts } = sums;
    const isBalanced = deltas === tellers && deltas === branches && deltas * options.rows === accounts;
    return { writesLost: Math.max(0, committed - rows), isBalanced };
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** One connection, made when it is first used. */
function open({ host, port, timeoutMs }: Options): Sql {
  return postgres({
    host,
    port,
    user: "postgres",
    database: "bank",
    max: 1,
    ssl: false,
    connect_timeout: timeoutMs / 1000,
    onnotice: () => {},
  });
}

function below(limit: number): number {
  return Math.floor(Math.random() * limit);
}

await runClient(work);
