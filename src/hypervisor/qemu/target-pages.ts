// How large the pages are that a QEMU migrates. The stream says so only where a board has chosen them (FORMAT.md,
// `configuration/target-page-bits`); elsewhere they are those that the architecture was built with, and it is asked for its
// name before anything moves. Facts: TARGET_PAGE_BITS in target/*/cpu-param.h; what QEMU does was seen with 7.2.

import { DeltaveeError } from "../../base/errors.ts";
import { DEFAULT_PAGE_BYTES, PAGE_BITS_MIN } from "../../stream/format.ts";

/** By QMP `query-target`; all others have pages of 4 KiB. */
const PAGE_BYTES: Readonly<Record<string, number>> = {
  // The least that there are: boards with others, which are all of ARMv7 and later, say so in the stream.
  arm: 1024,
  aarch64: 1024,
  avr: 256,
  alpha: 8192,
  cris: 8192,
  or1k: 8192,
  sparc64: 8192,
  tricore: 16384,
};
/** Its pages had 16 KiB at first, and have 4 KiB since at the latest this version. */
const LOONGARCH_MAJOR_SMALL = 9;

/**
 * Size of the pages of a stream that does not say it.
 * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE: pages that are larger than the host's have QEMU divide by zero in its
 *   `migrate`, and with it dies its guest
 */
export function targetPageBytes(arch: string, version: { readonly major: number }): number {
  const isEarlyLoongarch = arch === "loongarch64" && version.major < LOONGARCH_MAJOR_SMALL;
  const pageBytes = isEarlyLoongarch ? 16384 : (PAGE_BYTES[arch] ?? DEFAULT_PAGE_BYTES);
  if (pageBytes > DEFAULT_PAGE_BYTES) {
    throw new DeltaveeError(
      "HYPERVISOR_INCOMPATIBLE",
      `QEMU cannot migrate a guest of ${arch}: its pages of ${pageBytes} bytes are larger than the host's, at which ` +
        "QEMU crashes. The guest was not touched",
    );
  }
  if (pageBytes < 2 ** PAGE_BITS_MIN) {
    throw new DeltaveeError(
      "HYPERVISOR_INCOMPATIBLE",
      `A guest of ${arch} has pages of ${pageBytes} bytes, which the migration stream is not read with. It was not touched`,
    );
  }
  return pageBytes;
}
