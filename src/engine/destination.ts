// The destination engine (tunnel mode): frames in, the hypervisor's stream out, its return path back. It
// keeps no copy of the guest's RAM: XBZRLE records are applied by the hypervisor to its own. It lets the
// guest run only after COMMIT. Protocol: wire/PROTOCOL.md.

import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { DeltaveeError, type ErrorCode, toError, type VmWhere } from "../base/errors.ts";
import type { BatchCoder } from "../codec/entropy/batch-coder.ts";
import type { Kernel } from "../kernel/kernel.ts";
import type { KernelMemory } from "../kernel/memory.ts";
import { NO_REGION, RegionPool } from "../kernel/region-pool.ts";
import { NO_PAGES } from "../record/schema.ts";
import type { RunRecord } from "../record/writer.ts";
import type { Welcome } from "../wire/bodies.ts";
import { type DataFrame, type Frame, RETURN_BYTES_MAX } from "../wire/frame.ts";
import { abortFrame, answerHello, refusalFor } from "../wire/handshake.ts";
import { PAYLOAD_PAGES, PAYLOAD_RAM_LAYOUT } from "../wire/page-batch.ts";
import { BatchExpander } from "./batch-expander.ts";
import type { Channel, IncomingVm } from "./ports.ts";
import { TunnelPeer } from "./tunnel-peer.ts";

export interface DestinationOptions {
  /** Connection from the source. */
  channel: Channel;
  vm: IncomingVm;
  /** What this side is and can decode. */
  own: Welcome;
  /** The home memory of this migration, this thread's kernel in it, and what decodes batches there. */
  memory: KernelMemory;
  kernel: Kernel;
  coder: BatchCoder;
  /** The most that may be kept of the source's page cache, for delta codecs that need it (default: nothing). */
  baselineBytesMax?: number;
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

/** What references may oblige us to keep: twice what this version's source asks for. */
const WINDOW_BYTES_MAX = 64 * 1024 * 1024;
/** Records that are on their way to the hypervisor. */
const REGION_COUNT = 4;
const REGION_BYTES = 1024 * 1024;

/** A payload that was decoded and has not all gone to the hypervisor. */
interface Arrived {
  sequence: number;
  slot: number;
  kind: number;
  address: number;
  rawBytes: number;
}

export class DestinationEngine {
  readonly #options: DestinationOptions;
  readonly #peer: TunnelPeer;
  readonly #startMs: number;
  readonly #outcome: Promise<DestinationOutcome>;
  #resolve!: (outcome: DestinationOutcome) => void;
  #vmChannel: Channel | undefined;
  readonly #expander: BatchExpander;
  readonly #regions: RegionPool;
  /** Decoded, in order; the first one may be half expanded. */
  readonly #arrived: Arrived[] = [];
  #isDelivering = false;
  #slotForNext: number;
  #hypervisorIsBehind = false;
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
    const { memory, kernel, coder, baselineBytesMax = 0 } = options;
    this.#expander = new BatchExpander(memory, kernel, {
      windowBytesMax: WINDOW_BYTES_MAX,
      baselineBytesMax,
    });
    this.#regions = new RegionPool(memory, REGION_COUNT, REGION_BYTES);
    this.#slotForNext = coder.acquire();
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
      drained: () => {
        this.#hypervisorIsBehind = false;
        this.#stallIfNeeded();
      },
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
    const { coder, memory } = this.#options;
    const { sequence, entropyCodec, payloadKind, rawBytes, rawChecksum, coded } = frame;
    const slot = this.#slotForNext;
    assert(slot !== -1, "no DATA is taken from the link without a slot for it");
    memory.bytes(coder.slots[slot]!.codedAddress, coded.length).set(coded);
    this.#codedBytes += coded.length;
    this.#rawBytes += rawBytes;
    coder.decode(slot, coded.length, entropyCodec, rawBytes, rawChecksum, (result) => {
      if (this.#over) return;
      if (result instanceof DeltaveeError) {
        void this.#fail(result, true);
        return;
      }
      this.#arrived.push({ sequence, slot, kind: payloadKind, address: result.rawAddress, rawBytes });
      this.#deliver();
    });
    this.#slotForNext = coder.acquire();
    this.#stallIfNeeded();
  }

  /** Takes frames from the link only while there is a slot for the next, and a hypervisor that keeps up. */
  #stallIfNeeded(): void {
    if (this.#slotForNext === -1 || this.#hypervisorIsBehind) this.#peer.stall();
    else this.#peer.unstall();
  }

  /** Gives what has arrived to the hypervisor, in order, as far as there are regions for it. */
  #deliver(): void {
    // A slot that is given back lets the next frame in, which must not begin this anew in the middle of it.
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    try {
      while (this.#arrived.length > 0 && !this.#over && this.#deliverFirst()) this.#arrived.shift();
    } catch (thrown) {
      void this.#fail(toError(thrown), true);
    } finally {
      this.#isDelivering = false;
    }
  }

  /** @returns whether all of it is on its way */
  #deliverFirst(): boolean {
    const { memory } = this.#options;
    const { sequence, slot, kind, address, rawBytes } = this.#arrived[0]!;
    if (kind === PAYLOAD_RAM_LAYOUT) {
      this.#expander.layOut(memory.bytes(address, rawBytes));
      this.#release(slot);
      // Acknowledged with what follows it, since what came before it may not have been taken yet.
      return true;
    }
    if (kind !== PAYLOAD_PAGES) {
      this.#toHypervisor(address, rawBytes, () => {
        this.#release(slot);
        this.#acknowledge(sequence);
      });
      return true;
    }
    if (!this.#expander.isUnderWay) this.#expander.begin(address, rawBytes);
    while (this.#expander.isUnderWay) {
      const region = this.#regions.take();
      if (region === NO_REGION) return false;
      const bytes = this.#expander.expand(region, REGION_BYTES);
      const isLast = !this.#expander.isUnderWay;
      if (isLast) this.#release(slot);
      this.#toHypervisor(region, bytes, () => {
        this.#regions.give(region);
        if (isLast) this.#acknowledge(sequence);
        this.#deliver();
      });
    }
    return true;
  }

  #toHypervisor(address: number, bytes: number, written: () => void): void {
    const flowing = this.#vmChannel!.write(this.#options.memory.bytes(address, bytes), () => {
      if (!this.#over) written();
    });
    if (flowing || this.#hypervisorIsBehind) return;
    this.#hypervisorIsBehind = true;
    this.#stallIfNeeded();
  }

  #release(slot: number): void {
    const { coder } = this.#options;
    coder.release(slot);
    if (this.#slotForNext !== -1) return;
    this.#slotForNext = coder.acquire();
    this.#stallIfNeeded();
  }

  #acknowledge(sequence: number): void {
    this.#peer.send({ type: "ack", sequence });
    this.#tellLoaded();
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
