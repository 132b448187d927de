// A model of the guest behind a QMP socket: its memory is sampled while it runs, and QEMU is asked how often its pages
// are written, which tells those that are written with what was there before.

import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import {
  type GuestMemoryPlace,
  locateGuestMemory,
  openGuestMemory,
  processListeningOn,
} from "../../hypervisor/qemu/guest-memory.ts";
import { type QmpAddress, QmpClient } from "../../hypervisor/qemu/qmp.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { dirtyPagesPerSecond, type GuestModel } from "../../planner/guest-model.ts";
import { PageMeter } from "../../planner/page-meter.ts";
import { sampleGuest } from "../../planner/sampling.ts";
import { makeHome } from "../engine-parts.ts";

export interface SampleOptions {
  readonly qmp: QmpAddress;
  /** Of QEMU; found by the socket where it is not given. */
  readonly pid?: number;
  readonly samplePages: number;
  readonly spanMs: number;
}

export type HowSampled = Pick<SampleOptions, "samplePages" | "spanMs">;

/** What `npm run bench -- sampling` measures the cost of. */
export const SAMPLE_PAGES_DEFAULT = 3072;
export const SAMPLE_MS_DEFAULT = 1800;
const PAGE_BYTES = 4096;
/** QEMU counts for whole seconds. */
const DIRTY_RATE_SECONDS = 1;
const DIRTY_RATE_TIMEOUT_MS = 10_000;
const POLL_MS = 100;

export async function sampleQemu({ qmp: address, pid, ...how }: SampleOptions): Promise<GuestModel> {
  const qmp = await QmpClient.connect(address);
  try {
    const place = await locateGuestMemory(qmp, pid ?? processOf(address));
    const written = writtenPagesPerSecond(qmp);
    // Awaited below: until then its failure must not count as unhandled.
    written.catch(() => {});
    return withRewritten(await samplePlace(place, how), await written);
  } finally {
    qmp.close();
  }
}

function processOf(address: QmpAddress): number {
  try {
    return processListeningOn(address);
  } catch (thrown) {
    throw new UsageError(`${toError(thrown).message}: name QEMU's process with --pid`, { cause: thrown });
  }
}

/** What its memory alone says. */
export async function samplePlace(place: GuestMemoryPlace, how: HowSampled): Promise<GuestModel> {
  const memory = openGuestMemory(place);
  try {
    return await sampleMemory(memory, how);
  } finally {
    memory.close();
  }
}

export async function sampleMemory(
  memory: GuestMemory,
  { samplePages, spanMs }: HowSampled,
): Promise<GuestModel> {
  const { memory: home, kernel, clock } = makeHome();
  const nowMs = () => clock.nowMs();
  const meter = new PageMeter(home, kernel, memory.pageBytes, nowMs);
  return sampleGuest(memory, meter, { samplePages, spanMs, random: Math.random, nowMs, sleep });
}

/** What is written over and above what changes was written with what was there. */
function withRewritten(model: GuestModel, written: number | undefined): GuestModel {
  if (written === undefined) return model;
  const rewrittenPagesPerSecond = Math.max(0, written - dirtyPagesPerSecond(model));
  return { ...model, rewrittenPagesPerSecond, rewrittenIsKnown: true };
}

/**
 * Undefined where QEMU does not count: its dirty bitmap counts under KVM alone (under TCG the answer is always 0). Nor does
 * the host everywhere: soft-dirty bits (/proc/PID/clear_refs) need a kernel with CONFIG_MEM_SOFT_DIRTY, without which they
 * are accepted and stay 0; and of the huge pages in which QEMU asks to have its RAM, one bit stands for 512 pages.
 */
async function writtenPagesPerSecond(qmp: QmpClient): Promise<number | undefined> {
  if (!(await qmp.execute("query-kvm")).enabled) return undefined;
  await qmp.execute("calc-dirty-rate", { "calc-time": DIRTY_RATE_SECONDS, mode: "dirty-bitmap" });
  const deadlineMs = performance.now() + DIRTY_RATE_TIMEOUT_MS;
  for (;;) {
    const { status, "dirty-rate": mebibytes } = await qmp.execute("query-dirty-rate");
    if (status === "measured" && mebibytes !== undefined) return (mebibytes * 2 ** 20) / PAGE_BYTES;
    if (performance.now() > deadlineMs)
      throw new DeltaveeError("HYPERVISOR_FAILED", "QEMU has not measured its dirty rate (calc-dirty-rate)");
    await sleep(POLL_MS);
  }
}
