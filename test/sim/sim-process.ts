// A process in which an engine lives: when it crashes, its timers never fire, its sockets close, and whatever it was
// told or was about to say is gone. The hypervisors are other processes and live on.

import type { Clock } from "../../src/base/clock.ts";
import type { IncomingVm, OutgoingEnd, OutgoingVm } from "../../src/engine/ports.ts";
import type { SimEnd } from "./sim-connection.ts";

export class SimProcess implements Clock {
  readonly #clock: Clock;
  readonly #sockets = new Set<SimEnd>();
  #alive = true;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get alive(): boolean {
    return this.#alive;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  after(delayMs: number, callback: () => void): () => void {
    return this.#clock.after(delayMs, () => {
      if (this.#alive) callback();
    });
  }

  /** The operating system closes it when the process ends. */
  owns<Socket extends SimEnd>(socket: Socket): Socket {
    this.#sockets.add(socket);
    if (!this.#alive) socket.destroy();
    return socket;
  }

  crash(): void {
    this.#alive = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The call, as made by this process: not at all when it is dead, and nobody hears of the answer if it dies. */
  call<Result>(call: () => Promise<Result>): Promise<Result> {
    if (!this.#alive) return new Promise(() => {});
    return new Promise((resolve, reject) => {
      call().then(
        (result) => {
          if (this.#alive) resolve(result);
        },
        (error: unknown) => {
          if (this.#alive) reject(error);
        },
      );
    });
  }
}

/** A hypervisor as an engine in `process` sees it. */
export class OutgoingVmOf implements OutgoingVm {
  readonly #process: SimProcess;
  readonly #vm: OutgoingVm;
  readonly ended: Promise<OutgoingEnd>;
  readonly committed?: () => void;
  readonly startPostcopy?: () => Promise<void>;

  constructor(process: SimProcess, vm: OutgoingVm) {
    this.#process = process;
    this.#vm = vm;
    this.ended = process.call(() => vm.ended);
    if (vm.committed !== undefined) {
      this.committed = () => {
        if (process.alive) vm.committed?.();
      };
    }
    if (vm.startPostcopy !== undefined) {
      this.startPostcopy = () => process.call(async () => vm.startPostcopy?.());
    }
  }

  get description(): string {
    return this.#vm.description;
  }

  get switchoverControl(): OutgoingVm["switchoverControl"] {
    return this.#vm.switchoverControl;
  }

  get awaitsDestinationAck(): boolean {
    return this.#vm.awaitsDestinationAck;
  }

  get wasRunning(): boolean {
    return this.#vm.wasRunning;
  }

  begin = () => this.#process.call(() => this.#vm.begin());
  throttle = (percentage: number) => this.#process.call(async () => this.#vm.throttle?.(percentage));
  status = () => this.#process.call(() => this.#vm.status());
  cancel = () => this.#process.call(() => this.#vm.cancel());
  resume = () => this.#process.call(() => this.#vm.resume());
  isRunning = () => this.#process.call(() => this.#vm.isRunning());
  limitSwitchover = (bytes: number) => this.#process.call(() => this.#vm.limitSwitchover(bytes));
}

export class IncomingVmOf implements IncomingVm {
  readonly description: string;
  readonly ready?: () => Promise<void>;
  readonly #process: SimProcess;
  readonly #vm: IncomingVm;

  constructor(process: SimProcess, vm: IncomingVm) {
    this.#process = process;
    this.#vm = vm;
    this.description = vm.description;
    if (vm.ready !== undefined) this.ready = () => process.call(async () => vm.ready?.());
  }

  begin = (mayPostcopy: boolean) => this.#process.call(() => this.#vm.begin(mayPostcopy));
  loaded = () => this.#process.call(() => this.#vm.loaded());
  resume = () => this.#process.call(() => this.#vm.resume());
  discard = () => this.#process.call(() => this.#vm.discard());
}
