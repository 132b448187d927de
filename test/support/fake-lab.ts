// The lab as a client program has it, without a process around it: the test says what happens to the guest.

import { epochNowMs, type Lab, type Phase } from "../../src/lab/client/protocol.ts";

export class FakeLab implements Lab {
  readonly options: unknown;
  phase: Phase = "before";
  migrationBeganMs: number | undefined;
  migrationEndedMs: number | undefined;
  finish = (): void => {};
  readonly finishing = new Promise<void>((resolve) => {
    this.finish = resolve;
  });
  ready = (): void => {};
  readonly isReady = new Promise<void>((resolve) => {
    this.ready = resolve;
  });

  constructor(options: unknown) {
    this.options = options;
  }

  begin(): void {
    this.phase = "during";
    this.migrationBeganMs = epochNowMs();
  }

  end(): void {
    this.phase = "after";
    this.migrationEndedMs = epochNowMs();
  }
}
