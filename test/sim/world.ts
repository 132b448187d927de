// What is true in a simulation, whatever anybody says: where the guest is and who runs it. Every change is checked at
// once against the one rule that nothing may break, and told to whoever reads along.

import type { SimClock } from "./sim-clock.ts";

export type Place = "source" | "destination";

/**
 * none: no guest there (yet). incomplete: it is being loaded. paused, running: all of it is there. gone: the
 * hypervisor has ended.
 */
export type Presence = "none" | "incomplete" | "paused" | "running" | "gone";

export interface Violation {
  rule: string;
  atMs: number;
}

export class World {
  readonly presence: Record<Place, Presence> = { source: "paused", destination: "none" };
  readonly violations: Violation[] = [];
  /** RAM and devices of the source's guest when it was stopped last. */
  stoppedRam: Buffer | undefined;
  /** The source's hypervisor may still let its guest run by itself. */
  sourceMayResume = true;
  /** A hypervisor has died: what it held is lost, and nobody's fault. */
  readonly crashedHypervisors = new Set<Place>();
  readonly #clock: SimClock;
  readonly #log: ((line: string) => void) | undefined;
  readonly #stepListeners: ((step: string) => void)[] = [];

  constructor(clock: SimClock, log?: (line: string) => void) {
    this.#clock = clock;
    this.#log = log;
  }

  set(place: Place, presence: Presence): void {
    if (this.presence[place] === presence) return;
    this.presence[place] = presence;
    this.say(`${place}: guest ${presence}`);
    const other = place === "source" ? "destination" : "source";
    if (presence === "running" && this.presence[other] === "running") this.violated("two guests run");
  }

  violated(rule: string): void {
    this.say(`VIOLATION: ${rule}`);
    this.violations.push({ rule, atMs: this.#clock.nowMs() });
  }

  /** Something at which a fault may be waiting. */
  step(name: string): void {
    this.say(`- ${name}`);
    for (const listener of this.#stepListeners) listener(name);
  }

  onStep(listener: (step: string) => void): void {
    this.#stepListeners.push(listener);
  }

  say(line: string): void {
    this.#log?.(`${this.#clock.nowMs().toFixed(3).padStart(11)} ms  ${line}`);
  }

  get isSpoken(): boolean {
    return this.#log !== undefined;
  }
}
