// How the two ends of a tunnel tell that their hypervisors are managed by somebody else. An end that lets the guest run
// by itself (deltavee migrate, receive) must not be paired with one that leaves that to others: nobody, or both, would.

import type { HypervisorIdentity } from "../../wire/bodies.ts";

/** Which version it is, only its monitor tells. */
export const MANAGED_QEMU: HypervisorIdentity = {
  kind: "qemu",
  version: "unknown",
  compatibility: "managed by others: deltavee proxy at both ends",
};
