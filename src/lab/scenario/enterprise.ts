// A large enterprise system: a database in memory that fills most of the guest, and many users' sessions on it whose
// transactions, locks and logins have time-outs.

import type { Scenario, ScenarioParameters, Stage } from "../model.ts";
import { numberOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";
import { FAILURES, THROUGHPUT } from "./transactions.ts";

const PORT = 6379;
const MIB = 1024 ** 2;
/** What Redis and its allocator need for a document of a thousand bytes beside it: key, dictionary entry, size class. */
const OVERHEAD_BYTES = 120;
const POPULATE_TIMEOUT_MS = 30 * 60_000;
const READY_TIMEOUT_MS = 60_000;
/** Long enough for a lost session to be noticed, and for the service to be seen to work again. */
const AFTER_MS = 10_000;

function documentsOf(parameters: ScenarioParameters): number {
  const databaseMiB = numberOf(parameters, "databaseMiB", { min: 1 });
  return Math.floor((databaseMiB * MIB) / (documentBytesOf(parameters) + OVERHEAD_BYTES));
}

function documentBytesOf(parameters: ScenarioParameters): number {
  return numberOf(parameters, "documentBytes", { min: 64, max: 65_536 });
}

async function warmUp({ guest }: Stage, parameters: ScenarioParameters): Promise<void> {
  const documents = documentsOf(parameters);
  const bytes = documentBytesOf(parameters);
  await guest.run("sysctl -q vm.overcommit_memory=1");
  // Loaded from a pipe: the database is never on the disk, nor in the guest's page cache.
  await guest.run("mkdir -p /tmp/redis && mkfifo /tmp/redis/dump.rdb");
  await guest.start(`/lab/bin/documents ${documents} ${bytes} 1 > /tmp/redis/dump.rdb`, "/tmp/documents.log");
  await guest.start(
    `redis-server --port ${PORT} --bind 0.0.0.0 --protected-mode no --save '' --rdbchecksum no --appendonly no --dir /tmp/redis`,
    "/tmp/redis.log",
  );
  // Until all is loaded it answers with an error.
  await guest.run(`until redis-cli -p ${PORT} ping | grep -q PONG; do sleep 0.5; done`, POPULATE_TIMEOUT_MS);
  const size = (await guest.run(`redis-cli -p ${PORT} dbsize`)).trim();
  if (size !== String(documents)) throw new Error(`The database holds ${size} of ${documents} documents`);
}

export const enterprise: Scenario = {
  name: "enterprise",
  title: "Enterprise system",
  description:
    "Users' sessions with leases and time-outs on a large database in memory (Redis), every transaction of which changes " +
    "a few fields of several documents: flatters delta, as records that are updated in place do.",
  guest: { memoryMiB: 8192, vcpus: 1 },
  smoke: {
    guest: { memoryMiB: 512, vcpus: 1 },
    parameters: { databaseMiB: 64, workingSetMiB: 16, sessions: 20 },
  },
  parameters: {
    databaseMiB: 5120,
    documentBytes: 1000,
    /** Documents that users work on, of all: the first so many MiB. */
    workingSetMiB: 512,
    documentsPerTransaction: 8,
    /** Of each document, beside its version. */
    changedBytes: 64,
    sessions: 200,
    /** So long that an emulated guest has time to spare: time-outs are to be those of the migration. */
    thinkMs: 500,
    leaseMs: 5000,
    timeoutMs: 5000,
  },
  warmParameters: ["databaseMiB", "documentBytes"],
  metrics: [
    { name: "sessionsLost", title: "lost sessions", unit: "", isLowerBetter: true },
    ...FAILURES,
    { name: "leasesExpired", title: "expired locks", unit: "", isLowerBetter: true },
    { name: "writesLost", title: "acknowledged writes lost", unit: "", isLowerBetter: true },
    { name: "serviceDownMs", title: "service down", unit: "ms", isLowerBetter: true },
    ...THROUGHPUT,
  ],
  warmUp,
  async begin(stage, parameters) {
    const documentsPerGroup = numberOf(parameters, "documentsPerTransaction", { min: 1, max: 64 });
    const workingSetMiB = numberOf(parameters, "workingSetMiB", {
      min: 1,
      max: numberOf(parameters, "databaseMiB"),
    });
    const documentBytes = documentBytesOf(parameters);
    const worked = documentsOf({ ...parameters, databaseMiB: workingSetMiB });
    const timeoutMs = numberOf(parameters, "timeoutMs", { min: 100 });
    const leaseMs = numberOf(parameters, "leaseMs", { min: 100 });
    const client = await stage.startClient("sessions", {
      host: stage.guestAddress,
      port: PORT,
      sessions: numberOf(parameters, "sessions", { min: 1, max: 5000 }),
      leaseMs,
      timeoutMs,
      // A session is renewed with each of its transactions: who thinks for longer than half a lease loses it anyway.
      thinkMs: numberOf(parameters, "thinkMs", { max: leaseMs / 2 }),
      groups: Math.max(1, Math.floor(worked / documentsPerGroup)),
      documentsPerGroup,
      documentBytes,
      changedBytes: numberOf(parameters, "changedBytes", { min: 1, max: documentBytes - 12 }),
    });
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
