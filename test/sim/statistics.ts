// What many seeds came to: outcomes, and which faults really happened in which phase. A case that is never reached
// is a check that cannot fail.

import type { Plan } from "./plan.ts";
import type { SimulationResult } from "./simulation.ts";

export type Counts = Record<string, number>;

export interface Failure {
  seed: number;
  rule: string;
}

/** Of ten thousand seeds. About half of what they come to: what falls below is not reached any more. */
export const MINIMUM_COUNTS: Counts = {
  "RAM compared": 2000,
  "a person gave up": 90,
  "after destination has loaded everything": 45,
  "after destination phase committed": 10,
  "after destination phase completed": 10,
  "after destination phase iterating": 25,
  "after destination phase switchover": 20,
  "after destination runs the guest": 40,
  "after destination sends ack": 30,
  "after destination sends loaded": 20,
  "after destination sends resumed": 25,
  "after destination sends return": 25,
  "after destination sends running": 20,
  "after destination sends welcome": 20,
  "after source completes": 30,
  "after source gets SHUT 0": 35,
  "after source gets SWITCHOVER_ACK": 30,
  "after source hands over device state": 45,
  "after source has handed over everything": 35,
  "after source phase committed": 40,
  "after source phase completed": 20,
  "after source phase iterating": 75,
  "after source phase switchover": 40,
  "after source sends commit": 20,
  "after source sends data": 150,
  "after source sends hello": 35,
  "after source sends resume": 35,
  "after source stops the guest": 45,
  "before destination has loaded everything": 30,
  "before destination phase committed": 25,
  "before destination phase completed": 20,
  "before destination phase iterating": 25,
  "before destination phase switchover": 20,
  "before destination runs the guest": 35,
  "before destination sends ack": 25,
  "before destination sends loaded": 15,
  "before destination sends resumed": 35,
  "before destination sends return": 30,
  "before destination sends running": 20,
  "before destination sends welcome": 25,
  "before source completes": 45,
  "before source gets SHUT 0": 40,
  "before source gets SWITCHOVER_ACK": 25,
  "before source hands over device state": 50,
  "before source has handed over everything": 35,
  "before source phase committed": 40,
  "before source phase completed": 40,
  "before source phase failed": 20,
  "before source phase iterating": 55,
  "before source phase switchover": 40,
  "before source sends commit": 20,
  "before source sends data": 150,
  "before source sends done": 15,
  "before source sends hello": 25,
  "before source sends resume": 40,
  "before source stops the guest": 40,
  "destination cancelled, running on source": 200,
  "destination completed, paused on destination": 150,
  "destination completed, running on destination": 1000,
  "destination crashed": 150,
  "destination failed, paused on destination": 85,
  "destination failed, running on source": 1000,
  "destination failed, unknown": 65,
  "fault cancelled at destination": 100,
  "fault cancelled at destination in committed": 10,
  "fault cancelled at destination in iterating": 35,
  "fault cancelled at destination in setup": 30,
  "fault cancelled at destination in switchover": 15,
  "fault cancelled at source": 250,
  "fault cancelled at source in committed": 60,
  "fault cancelled at source in iterating": 100,
  "fault cancelled at source in setup": 50,
  "fault cancelled at source in switchover": 30,
  "fault cancelled at the monitor": 100,
  "fault cancelled at the monitor in iterating": 50,
  "fault cancelled at the monitor in setup": 25,
  "fault cancelled at the monitor in switchover": 10,
  "fault connection lost": 950,
  "fault connection lost in committed": 100,
  "fault connection lost in completed": 20,
  "fault connection lost in failed": 10,
  "fault connection lost in iterating": 500,
  "fault connection lost in setup": 100,
  "fault connection lost in switchover": 100,
  "fault destination engine crashes": 150,
  "fault destination engine crashes in committed": 15,
  "fault destination engine crashes in iterating": 50,
  "fault destination engine crashes in setup": 50,
  "fault destination engine crashes in switchover": 30,
  "fault destination hypervisor crashes": 150,
  "fault destination hypervisor crashes in committed": 35,
  "fault destination hypervisor crashes in iterating": 80,
  "fault destination hypervisor crashes in setup": 40,
  "fault destination hypervisor crashes in switchover": 20,
  "fault link away": 300,
  "fault link away in committed": 45,
  "fault link away in iterating": 100,
  "fault link away in setup": 95,
  "fault link away in switchover": 55,
  "fault link slow": 100,
  "fault link slow in committed": 25,
  "fault link slow in iterating": 35,
  "fault link slow in setup": 20,
  "fault link slow in switchover": 10,
  "fault source engine crashes": 300,
  "fault source engine crashes in committed": 70,
  "fault source engine crashes in iterating": 100,
  "fault source engine crashes in setup": 60,
  "fault source engine crashes in switchover": 30,
  "fault source hypervisor crashes": 100,
  "fault source hypervisor crashes in committed": 25,
  "fault source hypervisor crashes in iterating": 50,
  "fault source hypervisor crashes in setup": 30,
  "fault source monitor lost": 100,
  "fault source monitor lost in committed": 30,
  "fault source monitor lost in iterating": 65,
  "fault source monitor lost in setup": 20,
  "fault source monitor lost in switchover": 10,
  "fault stalled for ever": 150,
  "fault stalled for ever in committed": 35,
  "fault stalled for ever in iterating": 65,
  "fault stalled for ever in setup": 40,
  "fault stalled for ever in switchover": 10,
  "fault stalled to destination": 100,
  "fault stalled to destination in committed": 25,
  "fault stalled to destination in iterating": 55,
  "fault stalled to destination in setup": 35,
  "fault stalled to destination in switchover": 15,
  "fault stalled to source": 150,
  "fault stalled to source in committed": 40,
  "fault stalled to source in iterating": 65,
  "fault stalled to source in setup": 30,
  "fault stalled to source in switchover": 10,
  "mode direct, qemu": 1500,
  "mode tunnel, precopy": 800,
  "mode tunnel, qemu": 2000,
  "outages that cost nothing but time": 150,
  "post-copy begun": 150,
  "post-copy: completed, with the destination": 100,
  "post-copy: failed, unknown": 8,
  "post-copy: the guest runs there": 125,
  "resumed connections": 450,
  seeds: 10000,
  "source cancelled, paused on source": 20,
  "source cancelled, running on source": 250,
  "source completed, paused on destination": 150,
  "source completed, with the destination": 2000,
  "source crashed": 300,
  "source error CANCELLED": 300,
  "source error DOWNTIME_UNREACHABLE": 20,
  "source error HYPERVISOR_FAILED": 300,
  "source error HYPERVISOR_INCOMPATIBLE": 30,
  "source error LINK_CLOSED": 65,
  "source error LINK_FAILED": 450,
  "source error LINK_LOST": 200,
  "source error LINK_TIMEOUT": 150,
  "source error MAX_BYTES_REACHED": 70,
  "source error MAX_TIME_REACHED": 25,
  "source error MIGRATION_FAILED": 400,
  "source error OUT_OF_MEMORY": 15,
  "source error POSTCOPY_INTERRUPTED": 25,
  "source error PROTOCOL_REFUSED": 45,
  "source error PROTOCOL_VERSION": 25,
  "source failed, paused on source": 95,
  "source failed, running on source": 1000,
  "source failed, unknown": 500,
  "verdicts of the guard": 35,
  "with a cancel that fails": 450,
  "with a coder that fails": 65,
  "with a destination that cannot load": 200,
  "with a full disk": 200,
  "with a mute destination": 60,
  "with a paced link": 550,
  "with a paused guest": 300,
  "with a resume that fails": 250,
  "with a stream not understood": 400,
  "with another hypervisor": 45,
  "with another version": 45,
};

export function sumOf(parts: readonly Counts[]): Counts {
  const sum: Counts = {};
  for (const counts of parts) {
    for (const [name, count] of Object.entries(counts)) sum[name] = (sum[name] ?? 0) + count;
  }
  return sum;
}

const TRAITS: readonly { name: string; isSo: (plan: Plan) => boolean }[] = [
  { name: "a paused guest", isSo: (plan) => !plan.guestRuns },
  { name: "a full disk", isSo: (plan) => plan.sourceDiskLines !== undefined },
  { name: "another version", isSo: (plan) => plan.otherVersion },
  { name: "another hypervisor", isSo: (plan) => plan.otherHypervisor },
  { name: "a stream not understood", isSo: (plan) => plan.outgoing.opaqueAfterPasses !== undefined },
  { name: "a paced link", isSo: (plan) => plan.pacedBytesPerSecond !== undefined },
  { name: "a coder that fails", isSo: (plan) => plan.sourceCoderFailsAt !== undefined },
  {
    name: "a destination that cannot load",
    isSo: (plan) => plan.incomingFaults.failsAfterBytes !== undefined,
  },
  { name: "a mute destination", isSo: (plan) => plan.incomingFaults.isMute },
  { name: "a cancel that fails", isSo: (plan) => plan.outgoingFaults.cancel !== "works" },
  { name: "a resume that fails", isSo: (plan) => plan.incomingFaults.resume !== "works" },
];

export class Statistics {
  readonly failures: Failure[] = [];
  readonly #counts = new Map<string, number>();

  add(result: SimulationResult): void {
    const { plan, source, destination, fired, excluded, gaveUp, steps, violations, virtualMs } = result;
    const [violation] = violations;
    if (violation !== undefined) this.failures.push({ seed: plan.seed, rule: violation.rule });
    this.#count("seeds");
    this.#count("virtual seconds", Math.round(virtualMs / 1000));
    this.#count(`mode ${plan.mode}, ${plan.hypervisor}`);
    const outcome = source === undefined ? "crashed" : `${source.outcome}, ${source.vm}`;
    this.#count(`source ${outcome}`);
    if (source?.error !== undefined) this.#count(`source error ${source.error.code}`);
    if (plan.mode === "tunnel") {
      this.#count(
        `destination ${destination === undefined ? "crashed" : `${destination.outcome}, ${destination.vm}`}`,
      );
    }
    for (const { fault, phase, step, delayMs } of fired) {
      if (step !== undefined) this.#count(`${delayMs === 0 ? "before" : "after"} ${step}`);
      this.#count(`fault ${fault}`);
      this.#count(`fault ${fault} in ${phase}`);
    }
    for (const { name, isSo } of TRAITS) if (isSo(plan)) this.#count(`with ${name}`);
    if (steps.has("an outage that costs nothing but time")) this.#count("outages that cost nothing but time");
    if (steps.has("guard gives the verdict")) this.#count("verdicts of the guard");
    if (steps.has("destination sends resumed")) this.#count("resumed connections");
    if (steps.has("RAM compared")) this.#count("RAM compared");
    if (steps.has("source hands over the package")) this.#count("post-copy begun");
    if (steps.has("destination runs the guest") && steps.has("source hands over the package")) {
      this.#count("post-copy: the guest runs there");
      this.#count(`post-copy: ${outcome}`);
    }
    if (gaveUp) this.#count("a person gave up");
    this.#count("known case left out", excluded);
  }

  counts(): Counts {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  text(): string {
    const lines = Object.entries(this.counts()).map(
      ([name, count]) => `${String(count).padStart(8)}  ${name}`,
    );
    return lines.join("\n");
  }

  #count(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by);
  }
}
