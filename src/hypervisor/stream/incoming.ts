// A QEMU that takes a VM in, of which only the connection is known that it waits for: somebody else, e.g. libvirt, has
// started it and lets the guest run. It is connected to once, and not before there is a VM to load, since a connection
// that closes without one is a migration that has failed. Its verdict on the return path says how loading ended.

import { DeltaveeError, toError } from "../../base/errors.ts";
import type { Channel, ChannelListener, IncomingVm } from "../../engine/ports.ts";
import { ReturnPathReader, shutValue } from "../../stream/return-path.ts";

export class StreamIncoming implements IncomingVm {
  readonly description = "a QEMU of which only the stream is known";
  readonly isManaged = true;
  readonly #connect: () => Promise<Channel>;
  readonly #loaded: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: Error) => void;
  #begun: Promise<Channel> | undefined;

  /** `connect` makes the one connection; it is called when a source has come. */
  constructor(connect: () => Promise<Channel>) {
    this.#connect = connect;
    this.#loaded = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // It is for the caller of loaded() to hear of a failure.
    this.#loaded.catch(() => {});
  }

  async begin(mayPostcopy: boolean): Promise<Channel> {
    if (mayPostcopy) throw new DeltaveeError("HYPERVISOR_INCOMPATIBLE", "Post-copy needs QEMU's monitor");
    this.#begun ??= this.#begin();
    return this.#begun;
  }

  loaded(): Promise<void> {
    return this.#loaded;
  }

  /** For whoever manages it: the guest is given from one QEMU to the other by what both say of the migration. */
  async resume(): Promise<void> {}

  /** Without the rest of its stream QEMU cannot let the guest run, and ends: the engine has closed the connection. */
  async discard(): Promise<void> {}

  async #begin(): Promise<Channel> {
    let inner: Channel;
    try {
      inner = await this.#connect();
    } catch (thrown) {
      const text = `QEMU does not wait for a migration here: ${toError(thrown).message}`;
      throw new DeltaveeError("HYPERVISOR_FAILED", text, { cause: thrown });
    }
    return listenedTo(inner, {
      verdict: (verdict) => {
        if (verdict === 0) this.#resolve();
        else this.#failed(`QEMU could not load the migration (it says ${verdict}; its own log says why)`);
      },
      closed: () =>
        this.#failed("QEMU has closed its connection before it had loaded the guest (its own log says why)"),
    });
  }

  #failed(text: string): void {
    this.#reject(new DeltaveeError("HYPERVISOR_FAILED", text));
  }
}

/** `inner`, with the return path that comes out of it read along. */
function listenedTo(
  inner: Channel,
  { verdict, closed }: { verdict(value: number): void; closed(): void },
): Channel {
  const returnPath = new ReturnPathReader();
  return {
    listen(listener: ChannelListener): void {
      inner.listen({
        data: (bytes) => {
          listener.data(bytes);
          for (const message of returnPath.push(bytes)) {
            const value = shutValue(message);
            if (value !== undefined) verdict(value);
          }
        },
        drained: () => listener.drained(),
        ended: () => {
          listener.ended();
          closed();
        },
        failed: (error) => {
          listener.failed(error);
          closed();
        },
      });
    },
    write: (bytes, written) => inner.write(bytes, written),
    pause: () => inner.pause(),
    resume: () => inner.resume(),
    end: () => inner.end(),
    destroy: () => inner.destroy(),
  };
}
