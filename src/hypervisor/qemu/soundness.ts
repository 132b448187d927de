// Which QEMUs damage a guest that they migrate, whoever carries the stream.

/** Measured: none of many runs of 10.0 lost a write, while half of those of 7.2 did; in between is not known. */
const QEMU_MAJOR_SOUND = 10;

/** For people, one line: what is to be feared of a source of this version that runs its guest without KVM, if anything. */
export function lossWithoutKvm(version: string): string | undefined {
  if (Number.parseInt(version, 10) >= QEMU_MAJOR_SOUND) return undefined;
  return (
    `Without KVM, QEMU ${version} loses writes of the guest in migrations of its own making, as all before ` +
    `version ${QEMU_MAJOR_SOUND} may: a guest that arrives with damaged memory may be its doing.`
  );
}
