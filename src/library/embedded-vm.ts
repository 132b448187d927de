// A VM under the embedded hypervisor (v86), in a thread of this process: for trying Deltavee out, and for tests of
// programs that embed it, where there is no QEMU. It moves through a tunnel only, and ends with its process.

import { readFileSync } from "node:fs";
import { systemClock } from "../base/clock.ts";
import { type DeltaveeError, UsageError } from "../base/errors.ts";
import { PrecopyVm } from "../engine/precopy.ts";
import { v86GuestMemory } from "../hypervisor/v86/guest-memory.ts";
import { V86Incoming } from "../hypervisor/v86/incoming.ts";
import { V86Guest } from "../hypervisor/v86/outgoing.ts";
import { v86Version } from "../hypervisor/v86/version.ts";
import { VmHost } from "../hypervisor/v86/vm-host.ts";
import type { GuestMemory } from "../memory/guest-memory.ts";
import type { HypervisorIdentity } from "../wire/bodies.ts";
import { sampleOursInWorker } from "./forecast/live-forecast.ts";
import type { DestinationGuest, SourceGuest } from "./guest.ts";

/** The guest that comes with Deltavee (guest/README.md): it writes to its memory and says so on its serial line. */
const TEST_GUEST = new URL("../../guest/guest.elf", import.meta.url);
const MEMORY_BYTES_DEFAULT = 32 * 1024 * 1024;
const COMMAND_LINE_DEFAULT = "ws=4096 rate=500 pattern=sparse";

export interface EmbeddedVmOptions {
  /** RAM, in whole MiB (default: 32 MiB). Both sides must have the same. */
  memoryBytes?: number;
  /** Called with each line of the guest's serial port. */
  onSerialLine?: (line: string) => void;
}

export interface BootOptions extends EmbeddedVmOptions {
  /** A multiboot kernel, ELF for i386 (default: the test guest, which writes to its memory all the time). */
  kernel?: Uint8Array;
  /** Passed to the kernel as it is. */
  commandLine?: string;
}

/** A VM of the embedded hypervisor, for `migrate({ vm })`, `receive({ vm })` and `plan({ vm })`. */
export class EmbeddedVm {
  readonly #host: VmHost;
  readonly #hasGuest: boolean;
  #failure: DeltaveeError | undefined;

  /**
   * A VM with a guest that runs.
   * @throws DeltaveeError USAGE for a kernel or a size of RAM that cannot be run
   */
  static async boot({ kernel, commandLine, ...options }: BootOptions = {}): Promise<EmbeddedVm> {
    const elf = kernel ?? readFileSync(TEST_GUEST);
    const line = commandLine ?? (kernel === undefined ? COMMAND_LINE_DEFAULT : "");
    const vm = await EmbeddedVm.#open(options, { elf, commandLine: line });
    await vm.#host.run();
    return vm;
  }

  /** A VM that waits for a guest. @throws DeltaveeError USAGE for a size of RAM that cannot be had */
  static empty(options: EmbeddedVmOptions = {}): Promise<EmbeddedVm> {
    return EmbeddedVm.#open(options, undefined);
  }

  static async #open(
    { memoryBytes = MEMORY_BYTES_DEFAULT, onSerialLine }: EmbeddedVmOptions,
    kernel: { elf: Uint8Array; commandLine: string } | undefined,
  ): Promise<EmbeddedVm> {
    let vm: EmbeddedVm | undefined;
    const host = await VmHost.open({
      memoryBytes,
      ...(kernel === undefined ? {} : { kernel }),
      ...(onSerialLine === undefined ? {} : { onSerialLine: (line) => onSerialLine(line) }),
      onFailure: (error) => {
        if (vm !== undefined) vm.#failure = error;
      },
    });
    vm = new EmbeddedVm(host, kernel !== undefined);
    return vm;
  }

  private constructor(host: VmHost, hasGuest: boolean) {
    this.#host = host;
    this.#hasGuest = hasGuest;
  }

  /** Why the VM has died by itself, if it has. */
  get failure(): DeltaveeError | undefined {
    return this.#failure;
  }

  /** Types on the guest's serial line. */
  type(text: string): Promise<void> {
    return this.#host.sendSerial(text);
  }

  /** @internal */
  memory(): GuestMemory {
    if (!this.#hasGuest)
      throw new UsageError("This VM was opened for a guest to come: there is none to look at");
    return v86GuestMemory(this.#host);
  }

  /** Ends the VM, and the guest with it. Idempotent. */
  close(): Promise<void> {
    return this.#host.dispose();
  }

  /** @internal */
  asSource(): SourceGuest {
    return {
      open: async ({ mode, record }) => {
        if (!this.#hasGuest)
          throw new UsageError("This VM was opened for a guest to come: it has none to give");
        if (mode === "direct") {
          throw new UsageError(
            "The embedded hypervisor moves its guests through a tunnel (deltavee://...) only",
          );
        }
        const version = v86Version();
        const vm = new PrecopyVm({
          guest: new V86Guest(this.#host, { isRunning: true, version }),
          clock: systemClock,
          limits: undefined,
          decision: (choice, reason) =>
            record.add({ type: "decision", subject: "switchover", choice, reason }),
        });
        return {
          vm,
          identity: this.#identity(version),
          guestRamBytes: this.#host.memoryBytes,
          names: async () => ({}),
          sampler: async () => sampleOursInWorker(v86GuestMemory(this.#host)),
          close: async () => {},
        };
      },
    };
  }

  /** @internal */
  asDestination(): DestinationGuest {
    return {
      open: async () => {
        if (this.#hasGuest) throw new UsageError("This VM was opened with a guest: it can take in no other");
        const version = v86Version();
        const vm = new V86Incoming(this.#host, { version });
        return { vm, identity: this.#identity(version), close: async () => {} };
      },
    };
  }

  #identity(version: string): HypervisorIdentity {
    return { kind: "v86", version, compatibility: this.#host.compatibility };
  }
}
