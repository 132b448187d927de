// QEMU's own migration, as it comes, for the demo's "standard": nothing of Deltavee's is in its way. What is seen
// of it, by asking over QMP, goes into the run record. A guest that it cannot catch up with is stopped in the end
// by a raised downtime limit, as an operator would have to do.

import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { Handover } from "../../engine/handover.ts";
import type { QmpClient } from "../../hypervisor/qemu/qmp.ts";
import type { QmpResult } from "../../hypervisor/qemu/qmp-types.ts";
import { type Address, formatAddress } from "../../link/address.ts";
import { NO_PAGES } from "../../record/schema.ts";
import type { RunRecord } from "../../record/writer.ts";
import { STANDARD_ITERATIONS_MAX } from "./guest.ts";
import type { MigrationOrder } from "./messages.ts";

const POLL_EVERY_MS = 100;
/** QEMU takes no more; and far above any link, as QEMU's own pacing would only hide what is going on. */
const DOWNTIME_LIMIT_MS_MAX = 2_000_000;
const UNLIMITED_BYTES_PER_SECOND = 1e12;
const COMPLETED_TIMEOUT_MS = 2 ** 31 - 1;

type MigrationInfo = QmpResult<"query-migrate">;

/** The guest runs as soon as it has been loaded: QEMU starts it by itself. */
export async function receiveByQemu(
  qmp: QmpClient,
  path: string,
): Promise<{ address: Address; ended: Promise<DeltaveeError | undefined> }> {
  await setCapabilities(qmp);
  const completed = qmp.waitForEvent(
    "MIGRATION",
    ({ data }) => data.status === "completed" || data.status === "failed",
    COMPLETED_TIMEOUT_MS,
  );
  await qmp.execute("migrate-incoming", { uri: `unix:${path}` });
  const ended = completed.then(({ data }) =>
    data.status === "failed" ? failure("QEMU could not load the migration") : undefined,
  );
  return { address: { kind: "unix", path }, ended };
}

export async function migrateByQemu(
  qmp: QmpClient,
  { to, downtimeMsMax }: MigrationOrder,
  record: RunRecord,
): Promise<DeltaveeError | undefined> {
  const startMs = systemClock.nowMs();
  const handover = new Handover(record);
  await setCapabilities(qmp);
  await qmp.execute("migrate-set-parameters", {
    "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
    "downtime-limit": Math.max(1, Math.round(downtimeMsMax)),
  });
  let stoppedMs: number | undefined;
  let completedMs: number | undefined;
  qmp.on("STOP", () => {
    stoppedMs ??= systemClock.nowMs();
    if (handover.phase === "iterating") handover.enter("switchover", "the source's vCPUs have stopped");
  });
  qmp.on("MIGRATION", ({ data }) => {
    if (data.status === "completed") completedMs ??= systemClock.nowMs();
  });
  await qmp.execute("migrate", { uri: formatAddress(to) });
  handover.enter("iterating");

  let iteration = -1;
  let isRaised = false;
  for (;;) {
    const info = await qmp.execute("query-migrate");
    const figures = figuresOf(info);
    // QEMU counts several while it stops; all of them are the last.
    if (figures !== undefined && figures.iteration > iteration && handover.phase === "iterating") {
      iteration = figures.iteration;
      const { wireBytes, pages, remainingBytes, dirtyPagesPerSecond } = figures;
      record.add({ type: "iteration", iteration, wireBytes, pages, remainingBytes, dirtyPagesPerSecond });
    }
    if (figures !== undefined) record.add({ type: "sample", ...figures, iteration: Math.max(0, iteration) });
    if (iteration > STANDARD_ITERATIONS_MAX && !isRaised) {
      isRaised = true;
      const reason = `limit reached: ${STANDARD_ITERATIONS_MAX} iterations`;
      record.add({ type: "decision", subject: "switchover", choice: "now", reason });
      await qmp.execute("migrate-set-parameters", { "downtime-limit": DOWNTIME_LIMIT_MS_MAX });
    }
    const { status } = info;
    if (status === "completed" || status === "failed" || status === "cancelled") {
      return finish(status === "completed" ? undefined : failure(info["error-desc"] ?? status), info);
    }
    await sleep(POLL_EVERY_MS);
  }

  function finish(error: DeltaveeError | undefined, info: MigrationInfo): DeltaveeError | undefined {
    const nowMs = systemClock.nowMs();
    if (error === undefined) {
      if (handover.phase === "iterating") handover.enter("switchover");
      handover.enter("committed", "the source hypervisor has completed, the destination has everything");
      handover.enter("completed");
    } else {
      record.add({ type: "error", code: error.code, message: error.message });
      handover.enter("failed");
    }
    record.add({
      type: "summary",
      outcome: error === undefined ? "completed" : "failed",
      vm: error === undefined ? "running on destination" : "unknown",
      totalMs: nowMs - startMs,
      ...(stoppedMs === undefined || completedMs === undefined
        ? {}
        : { downtimeMs: completedMs - stoppedMs }),
      ...(info.downtime === undefined ? {} : { downtimeMsReported: info.downtime }),
      ...countersOf(info),
      iterations: iteration + 1,
    });
    return error;
  }
}

async function setCapabilities(qmp: QmpClient): Promise<void> {
  // With the return path the source completes when the destination has loaded the guest, not when all is written.
  await qmp.execute("migrate-set-capabilities", {
    capabilities: [
      { capability: "events", state: true },
      { capability: "return-path", state: true },
    ],
  });
}

function figuresOf(info: MigrationInfo) {
  const { ram } = info;
  if (ram === undefined) return undefined;
  return {
    ...countersOf(info),
    inFlightBytes: 0,
    windowBytes: 0,
    linkBytesPerSecond: (ram.mbps * 1e6) / 8,
    // QEMU counts bitmap syncs, and syncs once before the first pass.
    iteration: Math.max(0, ram["dirty-sync-count"] - 1),
    remainingBytes: ram.remaining,
    dirtyPagesPerSecond: ram["dirty-pages-rate"],
  };
}

function countersOf({ ram }: MigrationInfo) {
  return {
    // Whole pages and nothing else: what is handed over is what is sent.
    handedOverBytes: ram?.transferred ?? 0,
    wireBytes: ram?.transferred ?? 0,
    pages: {
      ...NO_PAGES,
      zeroPages: ram?.duplicate ?? 0,
      rawPages: ram?.normal ?? 0,
    },
  };
}

function failure(reason: string): DeltaveeError {
  return new DeltaveeError("HYPERVISOR_FAILED", `QEMU ended the migration: ${reason}`);
}
