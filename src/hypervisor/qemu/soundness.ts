// Which QEMUs damage a guest that they migrate, whoever carries the stream.

/** Measured: none of many runs of 10.0 lost a write, while half of those of 7.2 did; in between is not known. */
const QEMU_MAJOR_SOUND = 10;

/**
 * For people, one line: what is to be feared of a source of this version that runs its guest without KVM, if anything.
 * `ramBackends`: in how many pieces it has the guest's RAM. Seen with 10.0 too: of two, writes to the second got lost.
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
