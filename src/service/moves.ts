// Migrations of one direction: those under way, and the last ones that are over. What leaves (outgoing.ts) and what comes
// (incoming.ts) begin and judge them each in its own way, and keep track of them here.

import type { Move } from "./move.ts";

/** Of those that are over, the last ones are remembered. */
export const PAST_MAX = 200;

export class Moves<Entry extends { readonly move: Move }> {
  readonly #running = new Set<Entry>();
  readonly #past: Move[] = [];
  #whenIdle: (() => void)[] = [];

  get running(): ReadonlySet<Entry> {
    return this.#running;
  }

  /** In the order in which they came: first what is over. */
  get all(): readonly Move[] {
    return [...this.#past, ...[...this.#running].map(({ move }) => move)];
  }

  began(entry: Entry): void {
    this.#running.add(entry);
  }

  /** `next`: what may begin now that this one is over, before anybody hears that nothing is under way. */
  ended(entry: Entry, next: () => void = () => {}): void {
    this.#running.delete(entry);
    this.remember(entry.move);
    next();
    if (this.#running.size > 0) return;
    for (const tell of this.#whenIdle.splice(0)) tell();
  }

  /** One that is over, also when it never began. */
  remember(move: Move): void {
    this.#past.push(move);
    if (this.#past.length > PAST_MAX) this.#past.shift();
  }

  /** Undefined: there is none of this name. One that is over stays as it is. */
  cancel(id: string): Move | undefined {
    const move = this.all.find(({ subject }) => subject.id === id);
    if (move?.isOver === false) move.cancel();
    return move;
  }

  /** Those under way are given up where that can still be; where it cannot they come to their end. */
  cancelAll(): void {
    for (const { move } of this.#running) move.cancel();
  }

  /** Resolves when none is under way. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }
}
