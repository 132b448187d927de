// A relational database on disk: PostgreSQL with the tables and the transactions of pgbench, asked from outside.

import type { Scenario, ScenarioParameters, Stage } from "../model.ts";
import { numberOf, wordOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";
import { FAILURES, THROUGHPUT } from "./transactions.ts";

const PORT = 5432;
const DATA_FOLDER = "/var/lib/postgresql/lab";
const SET_UP_TIMEOUT_MS = 10 * 60_000;
const READY_TIMEOUT_MS = 60_000;
const AFTER_MS = 10_000;

function scaleOf(parameters: ScenarioParameters): number {
  return numberOf(parameters, "scale", { min: 1, max: 1000 });
}

async function warmUp({ guest }: Stage, parameters: ScenarioParameters): Promise<void> {
  const sharedMiB = numberOf(parameters, "sharedBuffersMiB", { min: 16 });
  const asPostgres = (command: string, timeoutMs = SET_UP_TIMEOUT_MS) =>
    guest.run(
      `su postgres -c 'PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; cd /tmp; ${command}'`,
      timeoutMs,
    );
  await asPostgres(`initdb -D ${DATA_FOLDER} -A trust -E UTF8 --locale=C --no-sync`);
  const settings = [
    "listen_addresses = '*'",
    `port = ${PORT}`,
    `shared_buffers = ${sharedMiB}MB`,
    "jit = off",
    "unix_socket_directories = '/tmp'",
  ];
  for (const setting of settings) {
    await guest.run(`echo "${setting}" >> ${DATA_FOLDER}/postgresql.conf`);
  }
  await guest.run(`echo "host all all all trust" >> ${DATA_FOLDER}/pg_hba.conf`);
  await asPostgres(`pg_ctl -D ${DATA_FOLDER} -l /tmp/postgres.log -w start`);
  await asPostgres(`createdb -h /tmp bank && pgbench -h /tmp -i -q -s ${scaleOf(parameters)} bank`);
  // In memory and on disk before the first run, so that no run pays for what was written here.
  await asPostgres(`psql -h /tmp -c CHECKPOINT -c "SELECT sum(abalance) FROM pgbench_accounts" bank`);
}

export const postgres: Scenario = {
  name: "postgres",
  title: "PostgreSQL",
  description:
    "pgbench's transactions on PostgreSQL, or ones that change hundreds of rows: pages of a database and its log, " +
    "where some bytes of many pages change; an emulated guest is too slow to write much.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: { guest: { memoryMiB: 512, vcpus: 1 }, parameters: { scale: 1, sharedBuffersMiB: 32 } },
  parameters: {
    scale: 10,
    sharedBuffersMiB: 256,
    clients: 4,
    /** Accounts that one transaction changes: 1 is TPC-B as pgbench has it. */
    rows: 1,
    synchronousCommit: "on",
    timeoutMs: 5000,
  },
  warmParameters: ["scale", "sharedBuffersMiB"],
  metrics: [
    ...FAILURES,
    { name: "writesLost", title: "acknowledged transactions lost", unit: "", isLowerBetter: true },
    { name: "serviceDownMs", title: "longest time without a commit", unit: "ms", isLowerBetter: true },
    ...THROUGHPUT,
  ],
  warmUp,
  async begin(stage, parameters) {
    const client = await stage.startClient("bank", {
      host: stage.guestAddress,
      port: PORT,
      clients: numberOf(parameters, "clients", { min: 1, max: 90 }),
      scale: scaleOf(parameters),
      rows: numberOf(parameters, "rows", { min: 1, max: 10_000 }),
      isSynchronous: wordOf(parameters, "synchronousCommit", ["on", "off"]) === "on",
      timeoutMs: numberOf(parameters, "timeoutMs", { min: 100 }),
    });
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
