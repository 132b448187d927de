// The QEMUs to test with. With DELTAVEE_REQUIRE_QEMU=1 in the environment a missing one is an error, so that where
// QEMU is expected no test is skipped unseen.

import * as lab from "../../src/lab/qemu-binaries.ts";

export type { QemuBinary } from "../../src/lab/qemu-binaries.ts";

/** By name. Prints what is missing. @throws Error if one is missing and DELTAVEE_REQUIRE_QEMU is 1 */
export function findQemus(): Map<string, lab.QemuBinary> {
  const { qemus, missing } = lab.findQemus();
  if (missing.length > 0) {
    const message = `Tests with real QEMU are left out: ${missing.join("; ")}`;
    if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message);
    console.warn(message);
  }
  return qemus;
}
