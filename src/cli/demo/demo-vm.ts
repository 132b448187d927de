// What a host process asks of a VM, whichever hypervisor runs it.

import type { DeltaveeError } from "../../base/errors.ts";
import type { Address } from "../../link/address.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { Method, MigrationOrder } from "./messages.ts";

/** What a VM is given by its host. */
export interface VmContext {
  readonly record: RunRecord;
  readonly onSerial: (text: string, hostMs: number) => void;
  /** The VM has died by itself. */
  readonly onFailure: (error: Error) => void;
}

export interface DemoVm {
  /** For people: "v86 0.5.462". */
  readonly hypervisor: string;
  run(): Promise<void>;
  /** Sends text to the guest's serial line. */
  type(text: string): Promise<void>;
  /** Gives the guest away. Resolves to what went wrong, if anything. */
  migrate(order: MigrationOrder): Promise<DeltaveeError | undefined>;
  /** Waits for a guest at `address`. `ended` resolves when it is here, to what went wrong, if anything. */
  receive(method: Method): Promise<{ address: Address; ended: Promise<DeltaveeError | undefined> }>;
  /** Ends the VM, whatever it is doing. */
  close(): Promise<void>;
}
