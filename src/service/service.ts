// The migrations of a host as one thing: what leaves, what comes, and how it all comes to an end without losing one.
// Sockets, files and hypervisors are for whoever makes it.

import type { Clock } from "../base/clock.ts";
import type { IncomingVms } from "./incoming.ts";
import type { MoveView } from "./move.ts";
import type { OutgoingMoves } from "./outgoing.ts";

export interface ServiceOptions {
  readonly outgoing: OutgoingMoves;
  /** Undefined: no VM is taken in. */
  readonly incoming: IncomingVms | undefined;
  readonly clock: Clock;
}

export class Service {
  readonly outgoing: OutgoingMoves;
  readonly incoming: IncomingVms | undefined;
  readonly #clock: Clock;
  #stopping: Promise<void> | undefined;

  constructor({ outgoing, incoming, clock }: ServiceOptions) {
    this.outgoing = outgoing;
    this.incoming = incoming;
    this.#clock = clock;
  }

  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  get runningCount(): number {
    return this.outgoing.runningCount + (this.incoming?.runningCount ?? 0);
  }

  get moves(): readonly MoveView[] {
    return [...this.outgoing.moves, ...(this.incoming?.moves ?? [])].map(({ view }) => view);
  }

  find(id: string): MoveView | undefined {
    return this.moves.find((move) => move.id === id);
  }

  /** Undefined: there is none of this name. One that is over stays as it is. */
  cancel(id: string): MoveView | undefined {
    return this.outgoing.cancel(id) ?? this.incoming?.cancel(id)?.view;
  }

  /**
   * Takes nothing new, lets what is under way finish, and cancels it when that has not happened within `graceMs`.
   * Resolves when nothing is under way any more, whichever way.
   */
  stop(graceMs: number): Promise<void> {
    this.#stopping ??= this.#stop(graceMs);
    return this.#stopping;
  }

  /** Gives up whatever can still be given up: those guests go on at their sources. What cannot comes to its end. */
  cancelAll(): void {
    this.outgoing.cancelAll();
    this.incoming?.cancelAll();
  }

  async #stop(graceMs: number): Promise<void> {
    const cancelTimer = this.#clock.after(graceMs, () => this.cancelAll());
    await Promise.all([this.outgoing.stop(), this.incoming?.stop()]);
    cancelTimer();
    this.incoming?.close();
  }
}
