// Which QEMUs damage a guest that they migrate, or die of it, whoever carries the stream. All of it is about guests without
// KVM: when QEMU has asked for the pages that were written to, it must look out for the next write to each. Versions before 9
// did not. Since then it does so for the right pages of the first RAMBlock alone, the one at offset 0: of all others it takes
// the place within the block for one among all blocks. Writes to those get lost; and where such a range ends beyond the first
// block QEMU fails an assertion.

import { formatBytes } from "../../base/units.ts";
import type { RamBlock } from "./ram-map.ts";

/** Measured: none of many runs of 10.0 lost a write, while half of those of 7.2 did; in between is not known. */
const QEMU_MAJOR_SOUND = 10;

/** Of what was tried 10.0 dies of it and 7.2 does not; it came with 9.0, and nothing is known of versions after 10. */
const QEMU_MAJORS_DYING = [9, 10];

/** What can be done about it. */
export const WAYS_ROUND_DEATH =
  "It can be moved while it is paused, or when its QEMU is started with the largest RAM backend first";

/**
 * Why a migration of a guest that runs without KVM would be the end of this QEMU, and with it of its guest; undefined: it would
 * not. Seen with 10.0.2: `tlb_reset_dirty_range_all: Assertion `block == qemu_get_ram_block(end - 1)' failed`.
 */
export function deathWithoutKvm(
  version: { readonly major: number },
  blocks: ReadonlyMap<string, RamBlock>,
): string | undefined {
  const first = [...blocks].find(([, { offset }]) => offset === 0);
  if (first === undefined || !QEMU_MAJORS_DYING.includes(version.major)) return undefined;
  const [firstName, { totalBytes }] = first;
  const longer = [...blocks].find(([, { usedBytes }]) => usedBytes > totalBytes);
  if (longer === undefined) return undefined;
  const [name, { usedBytes }] = longer;
  return (
    `QEMU ${version.major} without KVM dies in migrations of its own making where the RAM that was made first ` +
    `(${firstName}, ${formatBytes(totalBytes)}) is smaller than other RAM (${name}, ${formatBytes(usedBytes)})`
  );
}

/**
 * For people, one line: what is to be feared of a source of this version that runs its guest without KVM, if anything.
 * `ramBackends`: in how many pieces it has the guest's RAM. Seen with 10.0 too: of two, writes to the one that was not made
 * first got lost.
 */
export function lossWithoutKvm(version: string, ramBackends = 1): string | undefined {
  const isSound = Number.parseInt(version, 10) >= QEMU_MAJOR_SOUND;
  if (isSound && ramBackends <= 1) return undefined;
  const which = isSound
    ? "as it may where RAM has several backends (NUMA nodes, DIMMs)"
    : `as all before version ${QEMU_MAJOR_SOUND} may`;
  return (
    `Without KVM, QEMU ${version} loses writes of the guest in migrations of its own making, ${which}: ` +
    "a guest that arrives with damaged memory may be its doing."
  );
}
