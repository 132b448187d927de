// The guests and what they do while they are moved. The workload's options are those of the test guests
// (guest/README.md).

import { UsageError } from "../src/base/errors.ts";
import { linuxGuest } from "../test/support/linux-guest.ts";
import { GUEST_KERNEL, type QemuOptions } from "../test/support/qemu-vm.ts";

export interface Workload {
  readonly name: string;
  readonly description: string;
  readonly options: string;
}

export const WORKLOADS: readonly Workload[] = [
  {
    name: "sparse",
    description:
      "128 MiB working set of random content, 8000 pages/s touched, 1 to 8 scattered 8-byte words each",
    options: "ws=131072 rate=8000 pattern=sparse words=8 fill=random",
  },
  {
    name: "sparse-text",
    description:
      "128 MiB working set of text, 16000 pages/s touched, 1 to 8 scattered 8-byte words each with random content",
    options: "ws=131072 rate=16000 pattern=sparse words=8 fill=text",
  },
  {
    name: "text",
    description: "128 MiB working set of text, 4000 pages/s rewritten whole with other text",
    options: "ws=131072 rate=4000 pattern=text fill=text",
  },
  {
    name: "dense",
    description:
      "128 MiB working set of random content, 2000 pages/s rewritten whole with other random content",
    options: "ws=131072 rate=2000 pattern=page fill=random",
  },
];

export interface Guest {
  readonly name: string;
  readonly description: string;
  /** What QEMU needs to boot it with the given workload. */
  boot(workload: Workload): Pick<QemuOptions, "kernel" | "initrd" | "append" | "memoryMiB">;
}

const MEMORY_MIB = 512;

const bare: Guest = {
  name: "bare",
  description: "the bare-metal test guest (guest/guest.elf)",
  boot: ({ options }) => ({ kernel: GUEST_KERNEL, append: options, memoryMiB: MEMORY_MIB }),
};

const linux: Guest = {
  name: "linux",
  description: "Debian's cloud kernel with one static program as init (guest/linux)",
  boot: ({ options }) => {
    const boot = linuxGuest(options);
    if (boot === undefined) throw new UsageError("Without the Linux guest there is --guest bare");
    return { ...boot, memoryMiB: MEMORY_MIB };
  },
};

/** The first one is the default. */
export const GUESTS: readonly Guest[] = [linux, bare];
