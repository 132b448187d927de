// What many seeds came to: outcomes, and which faults really happened in which phase. A case that is never reached
// is a check that cannot fail.

import type { SimulationResult } from "./simulation.ts";

export type Counts = Record<string, number>;

export class Statistics {
  readonly failures: { seed: number; rule: string }[] = [];
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
    if (steps.has("RAM compared")) this.#count("RAM compared");
    if (gaveUp) this.#count("a person gave up");
    this.#count("known case left out", excluded);
  }

  counts(): Counts {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  text(): string {
    const lines = Object.entries(this.counts()).map(([name, count]) => `${String(count).padStart(8)}  ${name}`);
    return lines.join("\n");
  }

  #count(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by);
  }
}
