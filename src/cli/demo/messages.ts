// What the demo and the two processes that host its VMs say to each other, over Node's IPC channel. Each host has
// one VM; when the channel closes, for whatever reason, the host ends its VM and itself.

import type { ErrorCode } from "../../base/errors.ts";
import type { Address } from "../../link/address.ts";
import type { RecordEvent } from "../../record/schema.ts";

export type Side = "source" | "destination";
export type Method = "standard" | "delta";

export type HypervisorSpec =
  | { readonly kind: "v86" }
  | { readonly kind: "qemu"; readonly path: string; readonly accelerator: "kvm" | "tcg" };

export interface VmSpec {
  readonly side: Side;
  readonly hypervisor: HypervisorSpec;
  readonly memoryBytes: number;
  /** The guest's command line (guest/README.md); a destination gets it with the guest. */
  readonly guestOptions: string;
}

export interface MigrationOrder {
  readonly to: Address;
  readonly method: Method;
  readonly downtimeMsMax: number;
  readonly cacheBytesMax: number;
}

export type Request =
  /** Answered by `opened`. */
  | { readonly type: "open"; readonly vm: VmSpec }
  /** Lets the guest boot, on the source. */
  | { readonly type: "run" }
  /** Answered by `listening`, and by `ended` when the guest is there. */
  | { readonly type: "receive"; readonly method: Method }
  /** Answered by `ended`. */
  | { readonly type: "migrate"; readonly order: MigrationOrder }
  | { readonly type: "type"; readonly text: string };

export interface Ended {
  readonly type: "ended";
  readonly error?: PlainError;
}

/** An error as it crosses processes. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
}

/** `hostMs` is on the monotonic clock that all processes of this machine share (hostNowMs). */
export type Report =
  /** `hypervisor` is for people: "v86 0.5.462". */
  | { readonly type: "opened"; readonly hypervisor: string }
  | { readonly type: "listening"; readonly address: Address }
  /** What the guest has written on its serial line, cut anywhere. */
  | { readonly type: "serial"; readonly text: string; readonly hostMs: number }
  | { readonly type: "event"; readonly event: RecordEvent; readonly hostMs: number }
  | Ended
  /** The last word of a host that cannot go on. */
  | { readonly type: "failed"; readonly error: PlainError };

export type ReportOf<Type extends Report["type"]> = Extract<Report, { type: Type }>;

/** Milliseconds on a clock that is the same in every process of this machine. */
export function hostNowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
