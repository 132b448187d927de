// What one run needs of the hosts, the guest and its heartbeat, and nothing of how they are made (../stage.ts).

import type { MethodLink, MethodVm } from "../method/method.ts";
import type { Client, GuestShape, LabLink, Scenario, ScenarioParameters, Stage } from "../model.ts";

export interface StageOptions {
  readonly scenario: Scenario;
  readonly parameters: ScenarioParameters;
  readonly guest: GuestShape;
  readonly link: LabLink;
  readonly qemu: string;
  /** Something that takes its time, or that a person should know. */
  readonly notice: (text: string) => void;
  readonly signal: AbortSignal;
}

export interface StageVm extends MethodVm {
  readonly pid: number;
}

/** The guest runs at the source, from its warm state; the destination's QEMU waits. */
export interface OpenedStage {
  readonly stage: Stage;
  readonly source: StageVm;
  readonly destination: StageVm;
  readonly link: MethodLink;
  /** On the link so far, with all headers. Cheap. */
  wireBytes(): WireBytes;
  /** It beats already. Its view has the longest gap, and the guest's speed as it counts it. */
  readonly heartbeat: Client;
  /** Idempotent. */
  close(): Promise<void>;
}

export interface WireBytes {
  readonly bySource: number;
  readonly byDestination: number;
}

export type OpenStage = (options: StageOptions) => Promise<OpenedStage>;
