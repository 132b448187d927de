// What a migration and a reception need of a VM beside its hypervisor's ports, whichever hypervisor that is: QEMU, which
// outlives this process (qemu-guest.ts), one that others manage (managed-guest.ts), or the embedded one, which ends with
// this process (embedded-vm.ts).

import type { IncomingVm, OutgoingVm } from "../engine/ports.ts";
import type { StallPolicy } from "../engine/switchover/stall-policies.ts";
import type { Plan, PlanQuestion } from "../planner/forecast.ts";
import type { GuestModel } from "../planner/guest-model.ts";
import type { RunRecord } from "../record/writer.ts";
import type { JournalSubject } from "../state/journal.ts";
import type { KeptJournal } from "../state/keep.ts";
import type { PageObserver } from "../trace/format.ts";
import type { HypervisorIdentity } from "../wire/bodies.ts";

export type Notice = (message: string) => void;

/** A guest that has been looked at, wherever what is known of it is kept. */
export interface SampledGuest {
  readonly model: GuestModel;
  readonly plan: (question: Omit<PlanQuestion, "guest">) => Promise<Plan>;
}

/** Resolves to the guest, or to undefined when it was told to stop before. */
export type Sampler = (signal: AbortSignal) => Promise<SampledGuest | undefined>;

/** A VM that can be given away. */
export interface SourceGuest {
  /** Looks whether it can be migrated; changes nothing yet. @throws DeltaveeError */
  open(context: SourceContext): Promise<OpenSource>;
}

export interface SourceContext {
  readonly mode: "direct" | "tunnel";
  readonly onStall: StallPolicy;
  readonly stateDir: string | undefined;
  readonly record: RunRecord;
  readonly notice: Notice;
}

export interface OpenSource {
  readonly vm: OutgoingVm;
  readonly identity: HypervisorIdentity;
  /** Undefined: not known. */
  readonly guestRamBytes: number | undefined;
  /** Has to see each page: how far the hypervisor is, is told from them. There is no page trace then. */
  readonly observer?: PageObserver;
  /** By which the destination may know it. */
  names(): Promise<{ name?: string; uuid?: string }>;
  /** Keeps track of the migration beyond the end of this process. Absent: the guest ends with it. */
  keepJournal?(subject: SubjectOfSource): KeptJournal | undefined;
  /** Finds the guest's memory. Absent: it is not sampled. @throws DeltaveeError */
  sampler?(): Promise<Sampler>;
  /** Puts back what was changed. The guest is not touched. */
  close(): Promise<void>;
}

export type SubjectOfSource = Pick<JournalSubject, "session" | "mode" | "peer">;

/** A VM that can be taken in. */
export interface DestinationGuest {
  open(context: DestinationContext): Promise<OpenDestination>;
}

export interface DestinationContext {
  readonly stateDir: string | undefined;
  readonly notice: Notice;
}

export interface OpenDestination {
  readonly vm: IncomingVm;
  readonly identity: HypervisorIdentity;
  keepJournal?(subject: Pick<JournalSubject, "session" | "peer">): KeptJournal | undefined;
  close(): Promise<void>;
}
