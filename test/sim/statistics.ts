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
  "a person gave up": 35,
  "destination cancelled, running on source": 250,
  "destination completed, paused on destination": 100,
  "destination completed, running on destination": 1000,
  "destination crashed": 150,
  "destination failed, paused on destination": 100,
  "destination failed, running on source": 1000,
  "destination failed, unknown": 75,
  "fault cancelled at destination": 100,
  "fault cancelled at destination in committed": 15,
  "fault cancelled at destination in iterating": 45,
  "fault cancelled at destination in setup": 45,
  "fault cancelled at destination in switchover": 25,
  "fault cancelled at source": 300,
  "fault cancelled at source in committed": 70,
  "fault cancelled at source in iterating": 100,
  "fault cancelled at source in setup": 60,
  "fault cancelled at source in switchover": 30,
  "fault cancelled at the monitor": 100,
  "fault cancelled at the monitor in committed": 10,
  "fault cancelled at the monitor in iterating": 50,
  "fault cancelled at the monitor in setup": 30,
  "fault cancelled at the monitor in switchover": 15,
  "fault connection lost": 600,
  "fault connection lost in committed": 100,
  "fault connection lost in completed": 20,
  "fault connection lost in iterating": 200,
  "fault connection lost in setup": 150,
  "fault connection lost in switchover": 80,
  "fault destination engine crashes": 200,
  "fault destination engine crashes in committed": 25,
  "fault destination engine crashes in iterating": 70,
  "fault destination engine crashes in setup": 70,
  "fault destination engine crashes in switchover": 35,
  "fault destination hypervisor crashes": 200,
  "fault destination hypervisor crashes in committed": 45,
  "fault destination hypervisor crashes in iterating": 85,
  "fault destination hypervisor crashes in setup": 40,
  "fault destination hypervisor crashes in switchover": 25,
  "fault link slow": 100,
  "fault link slow in committed": 25,
  "fault link slow in iterating": 35,
  "fault link slow in setup": 25,
  "fault link slow in switchover": 15,
  "fault source engine crashes": 300,
  "fault source engine crashes in committed": 40,
  "fault source engine crashes in completed": 10,
  "fault source engine crashes in iterating": 100,
  "fault source engine crashes in setup": 95,
  "fault source engine crashes in switchover": 50,
  "fault source hypervisor crashes": 150,
  "fault source hypervisor crashes in committed": 30,
  "fault source hypervisor crashes in iterating": 65,
  "fault source hypervisor crashes in setup": 35,
  "fault source hypervisor crashes in switchover": 15,
  "fault source monitor lost": 100,
  "fault source monitor lost in committed": 15,
  "fault source monitor lost in iterating": 45,
  "fault source monitor lost in setup": 30,
  "fault source monitor lost in switchover": 10,
  "fault stalled for ever": 150,
  "fault stalled for ever in committed": 40,
  "fault stalled for ever in iterating": 65,
  "fault stalled for ever in setup": 45,
  "fault stalled for ever in switchover": 25,
  "fault stalled to destination": 200,
  "fault stalled to destination in committed": 50,
  "fault stalled to destination in iterating": 75,
  "fault stalled to destination in setup": 40,
  "fault stalled to destination in switchover": 20,
  "fault stalled to source": 150,
  "fault stalled to source in committed": 45,
  "fault stalled to source in iterating": 70,
  "fault stalled to source in setup": 40,
  "fault stalled to source in switchover": 20,
  "known case left out": 100,
  "mode direct, qemu": 1500,
  "mode tunnel, precopy": 800,
  "mode tunnel, qemu": 2000,
  seeds: 10000,
  "source cancelled, paused on source": 20,
  "source cancelled, running on source": 250,
  "source completed, paused on destination": 150,
  "source completed, running on destination": 2000,
  "source crashed": 300,
  "source error CANCELLED": 300,
  "source error HYPERVISOR_FAILED": 300,
  "source error HYPERVISOR_INCOMPATIBLE": 25,
  "source error LINK_CLOSED": 200,
  "source error LINK_FAILED": 550,
  "source error LINK_TIMEOUT": 200,
  "source error MIGRATION_FAILED": 450,
  "source error PROTOCOL_REFUSED": 40,
  "source error PROTOCOL_VERSION": 25,
  "source failed, paused on source": 90,
  "source failed, running on source": 1000,
  "source failed, unknown": 600,
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
    for (const { fault, phase } of fired) {
      this.#count(`fault ${fault}`);
      this.#count(`fault ${fault} in ${phase}`);
    }
    for (const { name, isSo } of TRAITS) if (isSo(plan)) this.#count(`with ${name}`);
    if (steps.has("RAM compared")) this.#count("RAM compared");
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
