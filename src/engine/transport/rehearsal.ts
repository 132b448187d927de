// What a rehearsal has shown: as many bytes as the guest may have to wait for, sent on purpose, and in which time they were
// answered. When one is worth its bytes: engine/switchover/rehearsals.ts. Pure.

import type { Proof } from "./source-link.ts";

/** For so long it is believed that what went through would do so again. */
const PROOF_MEMORY_MS = 5000;

export class Rehearsal {
  #underWay: { sequence: number; bytes: number; sentMs: number } | undefined;
  #proof: (Proof & { atMs: number }) | undefined;

  sent(sequence: number, bytes: number, sentMs: number): void {
    this.#underWay = { sequence, bytes, sentMs };
  }

  /** Everything up to and with `sequence` has arrived. */
  answered(sequence: number, atMs: number): void {
    if (this.#underWay === undefined || sequence < this.#underWay.sequence) return;
    const { bytes, sentMs } = this.#underWay;
    this.#proof = { bytes, answeredMs: atMs - sentMs, atMs };
    this.#underWay = undefined;
  }

  /** Another connection is another link. */
  forget(): void {
    this.#underWay = this.#proof = undefined;
  }

  proof(nowMs: number): Proof | undefined {
    return this.#proof !== undefined && nowMs - this.#proof.atMs <= PROOF_MEMORY_MS ? this.#proof : undefined;
  }
}
