// What the destination engine is given, and what it says at the end.

import type { Clock } from "../../base/clock.ts";
import type { DeltaveeError, VmWhere } from "../../base/errors.ts";
import type { BatchCoder } from "../../codec/entropy/batch-coder.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { Welcome } from "../../wire/bodies.ts";
import type { Channel, IncomingVm } from "../ports.ts";

export interface DestinationOptions {
  /** Connection from the source. */
  channel: Channel;
  vm: IncomingVm;
  /** What this side is and can decode, and how a broken connection is resumed, if it is to be. */
  own: Welcome;
  /** The home memory of this migration, this thread's kernel in it, and what decodes batches there. */
  memory: KernelMemory;
  kernel: Kernel;
  coder: BatchCoder;
  /** The most that may be kept of the source's page cache, for delta codecs that need it (default: nothing). */
  baselineBytesMax?: number;
  clock: Clock;
  record: RunRecord;
  /** The guest stays paused on arrival, whatever it did at the source: a person lets it run. */
  paused?: boolean;
  /** Called when the source has been welcomed. */
  welcomed?: (hello: { session: string; name: string | undefined }) => void;
}

export interface DestinationOutcome {
  outcome: "completed" | "failed" | "cancelled";
  vm: VmWhere;
  error?: DeltaveeError;
  /** False: whoever connected never got as far as a migration. The VM was not touched, another may come. */
  welcomed: boolean;
}
