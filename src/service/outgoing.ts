// The migrations that leave this host: those that wait their turn, those under way, those that are over. So many at a
// time, in the order in which they were asked for; each VM once. How one is carried out is for its order to say.

import { randomBytes } from "node:crypto";
import { DeltaveeError, UsageError, type VmWhere } from "../base/errors.ts";
import type { RecordListener } from "../record/writer.ts";
import { Move, type MoveView } from "./move.ts";
import { Moves } from "./moves.ts";

export interface MoveContext {
  readonly id: string;
  readonly signal: AbortSignal;
  /** To hear of each event of its record. */
  readonly listener: RecordListener;
}

export interface OutgoingOrder {
  /** What the guest is called. */
  readonly vm: string;
  /** No two with the same are under way, or wait: the VM's monitor. */
  readonly key: string;
  /** Where it goes, for people. */
  readonly peer: string;
  readonly weight: number;
  /** Carries it out. Rejects when the guest has not moved. */
  move(context: MoveContext): Promise<{ vm: VmWhere }>;
}

export interface OutgoingLimits {
  readonly concurrent: number;
  readonly queued: number;
}

interface Entry {
  readonly move: Move;
  readonly order: OutgoingOrder;
}

export class OutgoingMoves {
  readonly #limits: OutgoingLimits;
  readonly #queue: Entry[] = [];
  readonly #moves = new Moves<Entry>();
  #isStopping = false;

  constructor(limits: OutgoingLimits) {
    this.#limits = limits;
  }

  /** In the order in which they were asked for: first what is over. */
  get moves(): readonly Move[] {
    return [...this.#moves.all, ...this.#queue.map(({ move }) => move)];
  }

  get runningCount(): number {
    return this.#moves.running.size;
  }

  get queuedCount(): number {
    return this.#queue.length;
  }

  /**
   * @throws DeltaveeError SERVICE_STOPPING, or SERVICE_BUSY when too many wait
   * @throws UsageError when this VM is under way already, or waits
   */
  add(order: OutgoingOrder): MoveView {
    if (this.#isStopping) throw stopping(order.vm);
    const { vm, key, peer, weight } = order;
    const twin = [...this.#moves.running, ...this.#queue].find((entry) => entry.order.key === key);
    if (twin !== undefined) {
      throw new UsageError(`${vm} is ${twin.move.state} already, as migration ${twin.move.subject.id}`);
    }
    if (this.#queue.length >= this.#limits.queued) {
      throw new DeltaveeError(
        "SERVICE_BUSY",
        `${this.#queue.length} migrations wait already: ${vm} was refused`,
      );
    }
    const id = randomBytes(4).toString("hex");
    const move = new Move({ id, side: "source", vm, peer, weight });
    this.#queue.push({ move, order });
    this.#startNext();
    return move.view;
  }

  /** Undefined: there is none of this name. One that is over stays as it is. */
  cancel(id: string): MoveView | undefined {
    const waiting = this.#queue.find(({ move }) => move.subject.id === id);
    if (waiting !== undefined) {
      this.#queue.splice(this.#queue.indexOf(waiting), 1);
      this.#giveUp(waiting, new DeltaveeError("CANCELLED", "Cancelled before its turn had come"));
      return waiting.move.view;
    }
    return this.#moves.cancel(id)?.view;
  }

  /** Nothing new is taken, and what waits is given up: those guests were not touched. Resolves when none is under way. */
  stop(): Promise<void> {
    this.#isStopping = true;
    for (const entry of this.#queue.splice(0)) this.#giveUp(entry, stopping(entry.order.vm));
    return this.idle();
  }

  /** Those under way are given up where that can still be; where it cannot they come to their end. */
  cancelAll(): void {
    this.#moves.cancelAll();
  }

  /** Resolves when none is under way. */
  idle(): Promise<void> {
    return this.#moves.idle();
  }

  #startNext(): void {
    while (this.#moves.running.size < this.#limits.concurrent) {
      const entry = this.#queue.shift();
      if (entry === undefined) return;
      this.#moves.began(entry);
      void this.#run(entry);
    }
  }

  async #run(entry: Entry): Promise<void> {
    const { move, order } = entry;
    const { id } = move.subject;
    move.started();
    try {
      const { vm } = await order.move({ id, signal: move.signal, listener: move.listener });
      move.completed(vm);
    } catch (thrown) {
      move.endedWith(thrown);
    }
    this.#moves.ended(entry, () => this.#startNext());
  }

  #giveUp({ move }: Entry, error: DeltaveeError): void {
    move.endedWith(error);
    this.#moves.remember(move);
  }
}

function stopping(vm: string): DeltaveeError {
  return new DeltaveeError("SERVICE_STOPPING", `The service is shutting down: ${vm} was not touched`);
}
