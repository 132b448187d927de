// A v86 VM that takes a guest in: the stream is loaded in the VM's own thread, the verdict that all is loaded goes
// back on the return path as QEMU's does, and the guest runs when it is told to. What went wrong is for the
// caller of `loaded` to tell the source: on the return path there are no reasons.

import { DeltaveeError, toError } from "../../base/errors.ts";
import type { Channel, ChannelListener, IncomingVm, StoppedRam } from "../../engine/ports.ts";
import { ReturnPathType } from "../../stream/format.ts";
import { returnPathMessage } from "../../stream/return-path.ts";
import { v86StoppedRam } from "./stopped-ram.ts";
import type { VmHost } from "./vm-host.ts";

/** Stream bytes on their way to the VM's thread; above this the sender has to wait. */
const QUEUED_BYTES_MAX = 1024 * 1024;

export class V86Incoming implements IncomingVm {
  readonly description: string;
  readonly #host: VmHost;
  #listener: ChannelListener | undefined;
  #queuedBytes = 0;
  #blocked = false;
  #over = false;
  readonly #loaded: Promise<void>;
  #resolveLoaded!: () => void;
  #rejectLoaded!: (error: Error) => void;

  constructor(host: VmHost, options: { version: string }) {
    this.#host = host;
    this.description = `v86 ${options.version}`;
    this.#loaded = new Promise((resolve, reject) => {
      this.#resolveLoaded = resolve;
      this.#rejectLoaded = reject;
    });
    // Nobody may be listening yet, or any more.
    this.#loaded.catch(() => {});
  }

  async begin(): Promise<Channel> {
    return {
      listen: (listener) => {
        this.#listener = listener;
      },
      write: (bytes, written) => {
        if (this.#over) return false;
        void this.#load(bytes, written);
        this.#blocked = this.#queuedBytes > QUEUED_BYTES_MAX;
        return !this.#blocked;
      },
      // There is nothing to hold back: all that ever comes out of it is the verdict.
      pause: () => {},
      resume: () => {},
      end: () => this.#fail(new DeltaveeError("HYPERVISOR_FAILED", "The stream ended early")),
      destroy: () => this.#fail(new DeltaveeError("HYPERVISOR_FAILED", "The stream was dropped")),
    };
  }

  loaded(): Promise<void> {
    return this.#loaded;
  }

  async openRam(): Promise<StoppedRam> {
    return v86StoppedRam(this.#host);
  }

  resume(): Promise<void> {
    return this.#host.run();
  }

  discard(): Promise<void> {
    return this.#host.dispose();
  }

  async #load(bytes: Uint8Array, written: (() => void) | undefined): Promise<void> {
    this.#queuedBytes += bytes.length;
    let isComplete: boolean;
    try {
      isComplete = await this.#host.loadStream(bytes);
    } catch (thrown) {
      this.#fail(toError(thrown));
      return;
    }
    this.#queuedBytes -= bytes.length;
    if (this.#over) return;
    written?.();
    if (isComplete) {
      this.#over = true;
      this.#listener?.data(returnPathMessage(ReturnPathType.SHUT, 0));
      this.#resolveLoaded();
    } else if (this.#blocked && this.#queuedBytes <= QUEUED_BYTES_MAX / 2) {
      this.#blocked = false;
      this.#listener?.drained();
    }
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#rejectLoaded(error);
  }
}
