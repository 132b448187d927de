// Where the VM is allowed to run: the one state machine of a migration, at the source (docs/reliability.md).
//
//   setup → iterating → switchover → committed → completed
//     └─────────┴───────────┴─→ failed | cancelled        (the guest goes on at the source)
//                                   committed → failed     (the guest never resumes at the source by itself,
//                                                           unless the destination itself says it has it not)
//
// `committed` divides "the source may resume" from "the source must never resume". Every transition is an
// event of the run record; nothing else in the program decides this question. docs/reliability.md, "State machine".

import { assert } from "../base/assert.ts";
import type { Phase } from "../record/schema.ts";
import type { RunRecord } from "../record/writer.ts";

const NEXT: Readonly<Record<Phase, readonly Phase[]>> = {
  setup: ["iterating", "failed", "cancelled"],
  iterating: ["switchover", "failed", "cancelled"],
  switchover: ["committed", "failed", "cancelled"],
  committed: ["completed", "failed"],
  completed: [],
  failed: [],
  cancelled: [],
};

export class Handover {
  readonly #record: RunRecord;
  #phase: Phase = "setup";
  #committed = false;

  constructor(record: RunRecord) {
    this.#record = record;
    record.add({ type: "phase", phase: "setup" });
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** True from the moment after which the source must never resume the guest by itself. Never goes back. */
  get committed(): boolean {
    return this.#committed;
  }

  get isOver(): boolean {
    return NEXT[this.#phase].length === 0;
  }

  /** The next phase, with the reason where there is one to give. A step that is not in the diagram is a bug. */
  enter(phase: Phase, reason?: string): void {
    assert(NEXT[this.#phase].includes(phase), `phase ${phase} after ${this.#phase}`);
    this.#phase = phase;
    if (phase === "committed") this.#committed = true;
    this.#record.add({ type: "phase", phase, ...(reason === undefined ? {} : { reason }) });
  }
}
