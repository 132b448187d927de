// The destination engine (tunnel mode): frames in, the hypervisor's stream out, its return path back. It
// keeps no copy of the guest's RAM: XBZRLE records are applied by the hypervisor to its own. It lets the
// guest run only after COMMIT. Protocol: wire/PROTOCOL.md.

import type { Clock } from "../base/clock.ts";
import { DeltaveeError, type ErrorCode, toError, type VmWhere } from "../base/errors.ts";
import { entropyCoderOf } from "../codec/entropy.ts";
import type { RunRecord } from "../record/writer.ts";
import type { Welcome } from "../wire/bodies.ts";
import { checkRaw, type DataFrame, type Frame, RETURN_BYTES_MAX } from "../wire/frame.ts";
import { abortFrame, answerHello, refusalFor } from "../wire/handshake.ts";
import type { Channel, IncomingVm } from "./ports.ts";
import { TunnelPeer } from "./tunnel-peer.ts";

export interface DestinationOptions {
  /** Connection from the source. */
  channel: Channel;
  vm: IncomingVm;
  /** What this side is and can decode. */
  own: Welcome;
  clock: Clock;
  record: RunRecord;
  /** The guest stays paused on arrival, whatever it did at the source: a person lets it run. */
  paused?: boolean;
  /** Called when the source has been welcomed. */
  welcomed?: (hello: { session: string; name: string | undefined }) => void;
}

export interface DestinationOutcome {
  outcome: "completed" | "failed" | "cancelled";
  vm: VmWhere;
  error?: DeltaveeError;
  /** False: whoever connected never got as far as a migration. The VM was not touched, another may come. */
  welcomed: boolean;
}

/** The hypervisor, or the way to it, is gone: nobody can say what it has done. */
const OUT_OF_REACH: ReadonlySet<ErrorCode> = new Set(["QMP_INTERRUPTED", "QMP_UNAVAILABLE"]);

const NO_PAGES = {
  zeroPages: 0,
  unchangedPages: 0,
  deltaPages: 0,
  overflowPages: 0,
  rawPages: 0,
  deltaBytes: 0,
};

export class DestinationEngine {
  readonly #options: DestinationOptions;
  readonly #peer: TunnelPeer;
  readonly #startMs: number;
  readonly #outcome: Promise<DestinationOutcome>;
  #resolve!: (outcome: DestinationOutcome) => void;
  #vmChannel: Channel | undefined;
  #codedBytes = 0;
  #rawBytes = 0;
  #loaded = false;
  #loadedTold = false;
  #welcomed = false;
  #over = false;

  constructor(options: DestinationOptions) {
    this.#options = options;
    this.#startMs = options.clock.nowMs();
    this.#outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#peer = new TunnelPeer("destination", options.channel, options.clock, {
      frame: (frame) => this.#frame(frame),
      drained: () => {},
      failed: (error) => void this.#fail(error, false),
    });
  }

  /** Resolves when the migration is over, whichever way. Never rejects. */
  run(): Promise<DestinationOutcome> {
    return this.#outcome;
  }

  /** The operator gives up. Once the source has been told LOADED it is the source's to decide. */
  cancel(): void {
    if (this.#loadedTold) return;
    void this.#fail(new DeltaveeError("CANCELLED", "Cancelled at the destination"), true);
  }

  #frame(frame: Frame): void {
    switch (frame.type) {
      case "hello": {
        const answer = answerHello(frame, this.#options.own);
        if (answer.type === "refuse") {
          this.#peer.send(answer);
          const { code, message } = answer.reason;
          void this.#fail(
            new DeltaveeError("PROTOCOL_REFUSED", `Refused the source (${code}): ${message}`),
            true,
          );
          return;
        }
        // No DATA may come before the hypervisor is there to take it: WELCOME is the permission to send.
        this.#prepare().then(
          () => {
            if (this.#over) return;
            this.#welcomed = true;
            this.#peer.send(answer);
            this.#options.record.add({ type: "phase", phase: "iterating" });
            this.#options.welcomed?.({ session: frame.body.session, name: frame.body.name });
          },
          (error: unknown) => {
            if (!this.#over) this.#peer.send(refusalFor(toError(error)));
            void this.#fail(toError(error), true);
          },
        );
        return;
      }
      case "data":
        this.#data(frame);
        return;
      case "commit":
        void this.#takeOver(frame.resume && this.#options.paused !== true);
        return;
      case "abort": {
        const { code, message } = frame.reason;
        const text = `Source gave up (${code}): ${message}`;
        void this.#fail(
          new DeltaveeError(code === "CANCELLED" ? "CANCELLED" : "MIGRATION_FAILED", text),
          false,
          true,
        );
        return;
      }
      default:
        return;
    }
  }

  async #prepare(): Promise<void> {
    const { vm, record } = this.#options;
    record.add({ type: "phase", phase: "setup" });
    const channel = await vm.begin();
    this.#vmChannel = channel;
    channel.listen({
      data: (bytes) => {
        for (let start = 0; start < bytes.length; start += RETURN_BYTES_MAX) {
          const piece = new Uint8Array(bytes.subarray(start, start + RETURN_BYTES_MAX));
          if (!this.#over) this.#peer.send({ type: "return", bytes: piece });
        }
      },
      drained: () => this.#peer.unstall(),
      // It closes when it has loaded everything, or when loading failed: `loaded` tells which.
      ended: () => {},
      failed: (error) => {
        if (this.#loaded) return;
        const text = "The hypervisor dropped the incoming migration";
        void this.#fail(new DeltaveeError("HYPERVISOR_FAILED", text, { cause: error }), true);
      },
    });
    vm.loaded().then(
      () => {
        if (this.#over) return;
        this.#loaded = true;
        this.#options.record.add({ type: "phase", phase: "switchover", reason: "everything is loaded" });
        this.#tellLoaded();
      },
      (error: unknown) => void this.#fail(toError(error), true),
    );
  }

  #data(frame: DataFrame): void {
    let raw: Uint8Array;
    try {
      raw = entropyCoderOf(frame.entropyCodec).decompress(frame.coded, frame.rawBytes);
      checkRaw(frame, raw);
    } catch (thrown) {
      void this.#fail(toError(thrown), true);
      return;
    }
    // Uncompressed payloads are views of the connection's buffer; the hypervisor's socket keeps what it gets.
    if (raw.buffer === frame.coded.buffer) raw = new Uint8Array(raw);
    this.#codedBytes += frame.coded.length;
    this.#rawBytes += raw.length;
    const { sequence } = frame;
    const flowing = this.#vmChannel!.write(raw, () => {
      if (this.#over) return;
      this.#peer.send({ type: "ack", sequence });
      this.#tellLoaded();
    });
    if (!flowing) this.#peer.stall();
  }

  /** LOADED, once everything is loaded and acknowledged: the two are noticed in either order. */
  #tellLoaded(): void {
    if (!this.#loaded || this.#loadedTold || this.#peer.ackSequence < this.#peer.dataSequence) return;
    this.#loadedTold = true;
    this.#peer.send({ type: "loaded" });
  }

  /** COMMIT has come: from here on the guest is ours, and nothing gives it back. */
  async #takeOver(resume: boolean): Promise<void> {
    const { vm, record } = this.#options;
    record.add({ type: "phase", phase: "committed" });
    try {
      if (resume) await vm.resume();
    } catch (thrown) {
      const error = toError(thrown);
      this.#peer.send(abortFrame("HYPERVISOR_FAILED", error.message));
      this.#peer.end();
      record.add({ type: "phase", phase: "failed" });
      const outOfReach = error instanceof DeltaveeError && OUT_OF_REACH.has(error.code);
      this.#finish("failed", outOfReach ? "unknown" : "paused on destination", error);
      return;
    }
    if (!this.#over) {
      this.#peer.send({ type: "running" });
      this.#peer.end();
    }
    record.add({ type: "phase", phase: "completed" });
    this.#finish("completed", resume ? "running on destination" : "paused on destination");
  }

  /**
   * Before COMMIT: the copy of the guest here must never run. `tell`: the source does not know yet.
   * `sourceKept`: the source has said that it keeps the guest.
   */
  async #fail(error: Error, tell: boolean, sourceKept = false): Promise<void> {
    if (this.#over || this.#peer.committed) return;
    this.#over = true;
    const { vm } = this.#options;
    const code = error instanceof DeltaveeError ? error.code : "INTERNAL";
    try {
      if (tell) this.#peer.send(abortFrame(code, error.message));
    } catch {
      // Nothing can be said before HELLO or after REFUSE: the closed connection says it.
    }
    if (tell) this.#peer.end();
    else this.#peer.destroy();
    // Once the source knows of a loaded copy it may have given the guest up, with COMMIT lost on the way: then
    // the copy may be all that is left of the VM, and stays, paused, unless the source says that it keeps it.
    const keep = this.#loadedTold && !sourceKept;
    const where: VmWhere = keep ? "paused on destination" : "running on source";
    if (!keep && this.#vmChannel !== undefined) {
      this.#vmChannel.destroy();
      try {
        await vm.discard();
      } catch (thrown) {
        this.#options.record.add({ type: "notice", message: toError(thrown).message });
      }
    }
    const outcome = code === "CANCELLED" ? "cancelled" : "failed";
    if (this.#welcomed) this.#options.record.add({ type: "phase", phase: outcome });
    this.#finish(outcome, where, error);
  }

  #finish(outcome: DestinationOutcome["outcome"], vm: VmWhere, error?: Error): void {
    this.#over = true;
    const { record, clock } = this.#options;
    const failure =
      error === undefined || error instanceof DeltaveeError
        ? error
        : new DeltaveeError("INTERNAL", error.message, { cause: error });
    if (failure !== undefined) {
      failure.vm = vm;
      if (this.#welcomed) record.add({ type: "error", code: failure.code, message: failure.message, vm });
    }
    this.#resolve({
      outcome,
      vm,
      welcomed: this.#welcomed,
      ...(failure === undefined ? {} : { error: failure }),
    });
    if (!this.#welcomed) return;
    const nowMs = clock.nowMs();
    record.add({
      type: "summary",
      outcome,
      vm,
      totalMs: nowMs - this.#startMs,
      handedOverBytes: this.#rawBytes,
      wireBytes: this.#codedBytes,
      pages: NO_PAGES,
    });
  }
}
