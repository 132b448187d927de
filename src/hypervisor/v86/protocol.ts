// What the VM's worker thread (vm-worker.ts) and its client (vm-host.ts) say to each other. The client makes one
// call at a time, which is answered once; events come in between. Pages go through memory that both threads
// share: buffers allocated per call would have V8 collect garbage, on either side, in the middle of a switchover.

import type { ErrorCode } from "../../base/errors.ts";
import type { Compatibility } from "./compatibility.ts";
import type { Kernel } from "./kernel.ts";

/** Size of the shared memory, and bound on how long one call keeps the guest from running. */
export const PAGES_PER_CALL_MAX = 256;

/** Arrays are moved, not copied: who sends one has it no more. */
type Bytes = Uint8Array<ArrayBuffer>;
type PageIndices = Uint32Array<ArrayBuffer>;

/** Each operation with what is sent and what comes back. */
export interface Operations {
  open: {
    /** `exchange` has room for PAGES_PER_CALL_MAX pages. */
    request: { memoryBytes: number; kernel?: Kernel; exchange: SharedArrayBuffer };
    reply: Compatibility;
  };
  run: { request: null; reply: null };
  stop: { request: null; reply: null };
  resetScan: { request: null; reply: null };
  scan: { request: null; reply: PageIndices };
  /** Into `exchange`, one page behind the other; so too readPages. */
  takePages: { request: PageIndices; reply: null };
  readPages: { request: PageIndices; reply: null };
  /** From `exchange`. */
  writePages: { request: PageIndices; reply: null };
  /** So many bytes of a migration stream are in the exchange. True: that was all of it, the VM is restored. */
  loadStream: { request: number; reply: boolean };
  saveDeviceState: { request: null; reply: Bytes };
  restoreDeviceState: { request: Bytes; reply: null };
  sendSerial: { request: string; reply: null };
}

export type Operation = keyof Operations;

export type Call = {
  [Name in Operation]: { id: number; operation: Name; request: Operations[Name]["request"] };
}[Operation];

export type Message =
  | { type: "reply"; id: number; reply: unknown }
  | { type: "error"; id: number; error: PlainError }
  | { type: "serial"; line: string; hostMs: number };

/** An error as it crosses threads, which drop its class and code. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  cause?: string;
}
