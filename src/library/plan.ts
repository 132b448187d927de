// plan(): what a migration would take, before anything moves; the same forecasts as `deltavee plan` makes.

import { UsageError } from "../base/errors.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../engine/switchover/switchover.ts";
import { type Plan, planMigration } from "../planner/forecast.ts";
import { METHOD_NAMES, type MethodName } from "../planner/methods.ts";
import type { GuestModel } from "../record/guest-model.ts";
import type { EmbeddedVm } from "./embedded-vm.ts";
import { SAMPLE_MS_DEFAULT, SAMPLE_PAGES_DEFAULT, sampleMemory, sampleQemu } from "./forecast/sample.ts";
import { aboveZero, notNegative } from "./options.ts";
import { parseQmpAddress } from "./parse-address.ts";

export interface PlanOptions {
  /** QMP socket of the QEMU whose guest is to be looked at. Its memory is read through /proc/PID/mem: that needs root. */
  qmp?: string | undefined;
  /** A VM of the embedded hypervisor, instead. */
  vm?: EmbeddedVm | undefined;
  /** A guest that was looked at before (`guest` of a plan), instead of both. */
  guest?: GuestModel | undefined;
  /** Of the link, headers included. */
  linkBytesPerSecond: number;
  /** Default: 1. */
  roundTripMs?: number | undefined;
  /** Share of the packets that are lost on the way (default: 0). */
  lossShare?: number | undefined;
  /** The longest standstill to be accepted (default: 300). */
  maxDowntimeMs?: number | undefined;
  /** Page cache of delta methods (default: all of RAM). */
  cacheBytes?: number | undefined;
  /** Default: all; of an embedded VM the tunnel, which is the only one that there is for it. */
  methods?: readonly MethodName[] | undefined;
  /** Pages to look at (default: 3072), and for how long (default: 1800). */
  samplePages?: number | undefined;
  sampleMs?: number | undefined;
}

export interface PlanResult extends Plan {
  /** What was seen of the guest: plain data, also for `deltavee plan --model`. */
  guest: GuestModel;
}

/**
 * Forecasts the migration of a running guest, method by method. The guest is looked at for a moment (some 2 s) and neither
 * stopped nor slowed down.
 * @throws DeltaveeError USAGE for options that make no sense; HYPERVISOR_FAILED when its memory may not be read
 */
export async function plan(options: PlanOptions): Promise<PlanResult> {
  const bytesPerSecond = aboveZero("linkBytesPerSecond", options.linkBytesPerSecond);
  if (bytesPerSecond === undefined) throw new UsageError("linkBytesPerSecond is missing");
  const { lossShare = 0 } = options;
  if (!(lossShare >= 0 && lossShare < 0.5))
    throw new UsageError(`lossShare is a share of packets below a half, not ${lossShare}`);
  const cacheBytes = notNegative("cacheBytes", options.cacheBytes);
  const link = {
    ...{ bytesPerSecond, lossShare },
    roundTripMs: notNegative("roundTripMs", options.roundTripMs) ?? 1,
  };
  const downtimeMsMax = aboveZero("maxDowntimeMs", options.maxDowntimeMs) ?? DOWNTIME_MS_MAX_DEFAULT;
  const guest = await guestOf(options);
  const methods = options.methods ?? (options.vm === undefined ? METHOD_NAMES : ["tunnel" as const]);
  return {
    guest,
    ...planMigration({
      ...{ guest, link, downtimeMsMax, methods },
      ...(cacheBytes === undefined ? {} : { cacheBytes }),
    }),
  };
}

function guestOf({ qmp, vm, guest, samplePages, sampleMs }: PlanOptions): GuestModel | Promise<GuestModel> {
  const given = [qmp, vm, guest].filter((each) => each !== undefined).length;
  if (given !== 1) throw new UsageError("Say which guest: one of qmp, vm and guest");
  if (guest !== undefined) return guest;
  const how = {
    samplePages: aboveZero("samplePages", samplePages) ?? SAMPLE_PAGES_DEFAULT,
    spanMs: aboveZero("sampleMs", sampleMs) ?? SAMPLE_MS_DEFAULT,
  };
  if (vm !== undefined) return sampleMemory(vm.memory(), how);
  return sampleQemu({ qmp: parseQmpAddress(qmp!), ...how });
}
