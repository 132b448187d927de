// Many guests that leave over one link: in which order, and how many at a time. Each is a migration as migration.ts has
// it, and those under way share the link evenly. Deterministic.

import { assert } from "../base/assert.ts";
import type { GuestModel } from "./guest-model.ts";
import { type LinkModel, payloadBytesPerSecond } from "./link-model.ts";
import type { MethodName } from "./methods.ts";
import { type MigrationOutcome, MigrationSimulation } from "./migration.ts";

export interface FleetGuest {
  readonly name: string;
  readonly guest: GuestModel;
}

export const FLEET_ORDERS = [
  "given",
  "smallest-first",
  "largest-first",
  "calmest-first",
  "busiest-first",
] as const;
export type FleetOrder = (typeof FLEET_ORDERS)[number];

export interface FleetOptions {
  readonly guests: readonly FleetGuest[];
  readonly link: LinkModel;
  readonly method: MethodName;
  readonly downtimeMsMax: number;
  readonly order: FleetOrder;
  /** At most so many at a time. */
  readonly concurrent: number;
}

export interface FleetMember {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly outcome: MigrationOutcome;
}

export interface FleetOutcome {
  readonly totalMs: number;
  /** In the order in which they ended. */
  readonly members: readonly FleetMember[];
}

/** Shares of the link are dealt out anew so often. */
const STEP_MS = 500;

export function simulateFleet(options: FleetOptions): FleetOutcome {
  assert(options.concurrent >= 1, "somebody must be moved");
  const waiting = ordered(options);
  const linkBytesPerSecond = payloadBytesPerSecond(options.link);
  const active: { name: string; startMs: number; simulation: MigrationSimulation }[] = [];
  const members: FleetMember[] = [];
  let nowMs = 0;
  while (active.length > 0 || waiting.length > 0) {
    while (active.length < options.concurrent && waiting.length > 0) {
      const { name, guest } = waiting.shift()!;
      const share = linkBytesPerSecond / Math.min(options.concurrent, active.length + 1);
      const { method, downtimeMsMax, link } = options;
      const simulation = new MigrationSimulation(
        { guest, method, downtimeMsMax, roundTripMs: link.roundTripMs },
        share,
      );
      active.push({ name, startMs: nowMs, simulation });
    }
    const share = linkBytesPerSecond / active.length;
    for (const { simulation } of active) simulation.advance(STEP_MS, share);
    nowMs += STEP_MS;
    for (let i = active.length - 1; i >= 0; i--) {
      const { name, startMs, simulation } = active[i]!;
      const { outcome } = simulation;
      // What is left when the guest is stopped has its time on the link too.
      if (outcome === undefined || nowMs < startMs + outcome.totalMs) continue;
      active.splice(i, 1);
      members.push({ name, startMs, endMs: startMs + outcome.totalMs, outcome });
    }
  }
  return { totalMs: members.reduce((last, { endMs }) => Math.max(last, endMs), 0), members };
}

/** The best of several orders and numbers at a time: done first; of those equally fast, the one that moves fewer at once. */
export function bestFleetPlan(
  options: Omit<FleetOptions, "order" | "concurrent">,
  concurrents: readonly number[],
): { order: FleetOrder; concurrent: number; outcome: FleetOutcome }[] {
  return concurrents
    .flatMap((concurrent) =>
      FLEET_ORDERS.map((order) => ({
        order,
        concurrent,
        outcome: simulateFleet({ ...options, order, concurrent }),
      })),
    )
    .sort((a, b) => failures(a.outcome) - failures(b.outcome) || a.outcome.totalMs - b.outcome.totalMs);
}

const failures = ({ members }: FleetOutcome) => members.filter(({ outcome }) => !outcome.converges).length;

function ordered({ guests, order }: FleetOptions): FleetGuest[] {
  const size = ({ guest }: FleetGuest) => guest.pages - guest.zeroPages;
  const busy = ({ guest }: FleetGuest) =>
    guest.rateClasses.reduce(
      (sum, { pages, changesPerSecond }) => sum + pages * Math.min(1, changesPerSecond),
      0,
    );
  const by = (key: (each: FleetGuest) => number, sign: 1 | -1) =>
    [...guests].sort((a, b) => sign * (key(a) - key(b)));
  switch (order) {
    case "given":
      return [...guests];
    case "smallest-first":
      return by(size, 1);
    case "largest-first":
      return by(size, -1);
    case "calmest-first":
      return by(busy, 1);
    case "busiest-first":
      return by(busy, -1);
  }
}
