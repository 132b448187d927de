// `--verify` at the source: while both sides stand still and neither has been told more, RAM here is compared with RAM
// there. A connection that breaks meanwhile has it begun anew. What is compared, and how, is in ram-digests.ts.

import type { Clock } from "../../base/clock.ts";
import { LinkError, toError } from "../../base/errors.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import type { OutgoingVm, StoppedRam } from "../ports.ts";
import { openStoppedRam, RamComparison } from "../ram-digests.ts";
import type { TunnelLink } from "../transport/tunnel-link.ts";

/** How long the destination may take to read and hash what one question is about: at most some GiB. */
const DIGESTS_TIMEOUT_MS = 120_000;

export interface VerificationOptions {
  vm: OutgoingVm;
  clock: Clock;
  record: RunRecord;
  /** Asks the destination. */
  tunnel: Pick<TunnelLink, "verify">;
  /** RAM that differs is an IntegrityError. Not called for a comparison that was stopped. */
  failed: (error: Error) => void;
}

export class Verification {
  readonly #options: VerificationOptions;
  #comparison: RamComparison | undefined;
  #isDone = false;
  #cancelTimer: () => void = () => {};

  constructor(options: VerificationOptions) {
    this.#options = options;
  }

  /** RAM was found equal at both ends. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Returns whether RAM was found equal now; false also while a comparison is under way, and when it was stopped. */
  async run(blocks: readonly StreamBlock[]): Promise<boolean> {
    const { vm, clock, record, tunnel, failed } = this.#options;
    if (this.#comparison !== undefined) return false;
    const startMs = clock.nowMs();
    let ram: StoppedRam | undefined;
    const comparison = new RamComparison(
      { lengthOf: (idstr) => ram?.lengthOf(idstr), read: (...piece) => ram!.read(...piece), close: () => {} },
      (pieces) => {
        this.#awaitDigests();
        tunnel.verify(pieces);
      },
    );
    this.#comparison = comparison;
    try {
      ram = await openStoppedRam(vm);
      const verification = await comparison.run(blocks);
      if (verification === undefined || this.#comparison !== comparison) return false;
      record.add({ type: "verified", ...verification, verifyMs: clock.nowMs() - startMs });
      this.#isDone = true;
      return true;
    } catch (thrown) {
      if (this.#comparison === comparison) failed(toError(thrown));
      return false;
    } finally {
      ram?.close();
      if (this.#comparison === comparison) this.#comparison = undefined;
    }
  }

  /** Valid during the call. */
  answered(digests: Uint8Array): void {
    this.#cancelTimer();
    this.#comparison?.answered(digests);
  }

  /** What is under way comes to nothing. */
  stop(): void {
    this.#cancelTimer();
    const comparison = this.#comparison;
    this.#comparison = undefined;
    comparison?.stop();
  }

  #awaitDigests(): void {
    this.#cancelTimer = this.#options.clock.after(DIGESTS_TIMEOUT_MS, () => {
      const text = `Destination has not said within ${DIGESTS_TIMEOUT_MS / 1000} s what its RAM is`;
      this.#options.failed(new LinkError("LINK_TIMEOUT", text));
    });
  }
}
