// What the source engine is given, and what it says at the end.

import type { Clock } from "../../base/clock.ts";
import type { DeltaveeError, VmWhere } from "../../base/errors.ts";
import type { DeltaCodecId } from "../../codec/delta/delta-codec.ts";
import type { BatchCoder } from "../../codec/entropy/batch-coder.ts";
import type { Kernel } from "../../kernel/kernel.ts";
import type { KernelMemory } from "../../kernel/memory.ts";
import type { RunRecord } from "../../record/writer.ts";
import type { PageObserver } from "../../trace/format.ts";
import type { Hello } from "../../wire/bodies.ts";
import type { CacheFactory } from "../pages/rewriter.ts";
import type { Channel, OutgoingVm } from "../ports.ts";
import type { Promises } from "../switchover/convergence.ts";
import type { ReconnectOptions } from "../transport/tunnel-link.ts";

export interface TunnelOptions {
  /** How this side introduces itself. */
  hello: Hello;
  /** Codes batches, in the home memory. The caller closes it. */
  coder: BatchCoder;
  /** How pages that the destination knows are coded. */
  deltaCodec: DeltaCodecId;
  /** How a connection that breaks is resumed. Undefined: it is the end of the migration. */
  reconnect?: ReconnectOptions;
  /**
   * How long the destination may be out of reach while the guest stands still and can be taken back; then it is.
   * Default: as at any other time.
   */
  switchoverTimeoutMs?: number;
}

export interface SourceOptions extends Promises {
  vm: OutgoingVm;
  /** Connection to the destination: a stock QEMU (direct) or a destination engine (tunnel). */
  channel: Channel;
  /** Tunnel mode if given. */
  tunnel?: TunnelOptions;
  /** Undefined = method `standard`: every page whole. */
  cacheFactory: CacheFactory | undefined;
  /** The home memory of this migration, and this thread's kernel in it. */
  memory: KernelMemory;
  kernel: Kernel;
  clock: Clock;
  record: RunRecord;
  /** Runs `callback` after the events that are already waiting, e.g. setImmediate. */
  defer: (callback: () => void) => void;
  /** Is told what became of each page, e.g. a page trace. */
  observer?: PageObserver | undefined;
  /** CPU time of this process so far, where it is known. */
  cpuMs?: () => number;
  /** Time for which cores of this machine were idle, of all together, where it is known (engine/intake/bypass.ts). */
  idleCoreMs?: () => number;
}

export interface SourceOutcome {
  outcome: "completed" | "failed" | "cancelled";
  vm: VmWhere;
  error?: DeltaveeError;
}
