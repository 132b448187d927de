// The guard: a process of its own beside a direct migration, so that a migration that is killed in the middle of the
// switchover does not end with the guest running on both sides (docs/decisions/0013-the-guard.md). It holds a
// duplicate of the connection that QEMU's stream comes through, and does nothing as long as its parent lives.
//
// fd 0: from the parent, one byte once the destination may get everything; its end is the end of the parent.
// fd 3: the connection to QEMU.

import { Socket } from "node:net";
import { ReturnPathType } from "../../stream/format.ts";
import { returnPathMessage } from "../../stream/return-path.ts";

const QEMU_FD = 3;

// It ends when its parent does, or when QEMU is done; not when a service or a terminal is told to stop.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});

let committed = false;
const parent = new Socket({ fd: 0, readable: true, writable: false });
parent.on("data", () => {
  committed = true;
});
// A broken pipe is an ended one: "close" follows.
parent.on("error", () => {});
parent.on("close", () => {
  // Without the byte the destination cannot have everything. The connection closes, QEMU sees that, and the guest
  // goes on here.
  if (committed) completeAtQemu();
});

/**
 * The destination may run the guest. QEMU gets the verdict that it waits for, and a reader for whatever it has left
 * to say, so that it completes with the guest paused instead of resuming it. Ends when QEMU closes.
 */
function completeAtQemu(): void {
  const qemu = new Socket({ fd: QEMU_FD });
  qemu.on("error", () => {});
  qemu.on("data", () => {});
  qemu.write(returnPathMessage(ReturnPathType.SHUT, 0));
}
