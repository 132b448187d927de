// The VMs that come to this host: one address where all sources connect to, the VMs that are prepared to be filled, and
// which source is for which of them. A source says in its first frame which VM it brings; who it is has been proved by
// then (link/lobby.ts). How a VM is taken in is for whoever has prepared it to say.

import { randomBytes } from "node:crypto";
import { systemClock } from "../base/clock.ts";
import { DeltaveeError, toError, UsageError, type VmWhere } from "../base/errors.ts";
import { RareNotices } from "../base/rare-notices.ts";
import type { Channel } from "../engine/ports.ts";
import { type AllowRule, refusalOf } from "../library/admission.ts";
import { throwIfCancelled } from "../library/run.ts";
import type { SourceQueue } from "../library/sources.ts";
import { type Address, type Listener, listen } from "../link/address.ts";
import { type Caller, Lobby, type Refusal } from "../link/lobby.ts";
import type { TlsIdentity } from "../link/tls/identity.ts";
import type { Peer } from "../link/tls/secure.ts";
import type { RecordListener } from "../record/writer.ts";
import { encodeFrame, type HelloFrame } from "../wire/frame.ts";
import { refuseFrame } from "../wire/handshake.ts";
import { Move } from "./move.ts";
import { Moves } from "./moves.ts";
import type { MoveContext } from "./outgoing.ts";

/** Connections that come for a VM while it is between two of its source's. */
const KEPT_MAX = 8;
/** How long a refused connection may take to close. */
const REFUSED_CLOSES_MS = 1000;

export interface VmNames {
  readonly name?: string | undefined;
  readonly uuid?: string | undefined;
}

/** A VM that waits to be filled. */
export interface WaitingVm {
  /** No two with the same wait: its monitor. */
  readonly key: string;
  /** By which its source calls it. */
  readonly names: VmNames;
  /** Takes it in. Rejects when it has not come. */
  takeIn(sources: SourceQueue, context: MoveContext): Promise<{ vm: VmWhere }>;
}

export interface IncomingOptions {
  readonly listen: Address;
  readonly identity: TlsIdentity | undefined;
  readonly rules: readonly AllowRule[];
  /** VMs that are taken in at a time. */
  readonly concurrent: number;
  /** One that was not prepared and yet waits, if there is one. */
  readonly find?: (names: VmNames) => WaitingVm | undefined;
  readonly notice: (text: string) => void;
}

/** A source and the VM that it fills. */
interface Reception {
  readonly move: Move;
  readonly waiting: WaitingVm;
  readonly session: string;
  readonly peer: Peer | undefined;
  readonly sources: OneSource;
}

export class IncomingVms {
  readonly #options: IncomingOptions;
  readonly #lobby: Lobby;
  readonly #prepared = new Map<string, WaitingVm>();
  readonly #moves = new Moves<Reception>();
  #listener!: Listener;
  #isStopping = false;

  /** @throws LinkError LINK_FAILED when it cannot listen there */
  static async listen(options: IncomingOptions): Promise<IncomingVms> {
    const incoming = new IncomingVms(options);
    const handlers = {
      onConnection: incoming.#lobby.connected.bind(incoming.#lobby),
      onError: (error: Error) => options.notice(error.message),
    };
    incoming.#listener = await listen(options.listen, handlers, { pauseOnConnect: true });
    return incoming;
  }

  private constructor(options: IncomingOptions) {
    this.#options = options;
    const notices = new RareNotices(systemClock, options.notice);
    this.#lobby = new Lobby({
      clock: systemClock,
      identity: options.identity,
      refusal: (caller) => this.#refusal(caller),
      enter: (caller) => this.#enter(caller),
      turnedAway: (text) => notices.say(text),
    });
  }

  /** With the port that the kernel chose, if 0 was asked for. */
  get address(): Address {
    return this.#listener.address;
  }

  get moves(): readonly Move[] {
    return this.#moves.all;
  }

  get runningCount(): number {
    return this.#moves.running.size;
  }

  get prepared(): readonly WaitingVm[] {
    return [...this.#prepared.values()];
  }

  /** It waits for its source from now on, until it has come whole or is forgotten. @throws UsageError when it does already */
  prepare(vm: WaitingVm): void {
    const { name, uuid } = vm.names;
    if (name === undefined && uuid === undefined) {
      throw new UsageError(
        `The VM of ${vm.key} has neither name nor UUID: no source could be known to be its own (QEMU's -name or -uuid)`,
      );
    }
    const twin = this.prepared.find((other) => other.key === vm.key || isSameVm(other.names, vm.names));
    if (twin !== undefined) throw new UsageError(`${nameOf(vm.names)} is waited for already, at ${twin.key}`);
    this.#prepared.set(vm.key, vm);
  }

  /** False: there is none such. One that is being taken in is not ended by this. */
  forget(key: string): boolean {
    return this.#prepared.delete(key);
  }

  /** Undefined: there is none of this name. */
  cancel(id: string): Move | undefined {
    return this.#moves.cancel(id);
  }

  /** New sources are refused; those of VMs under way may still come back. Resolves when none is under way. */
  stop(): Promise<void> {
    this.#isStopping = true;
    return this.idle();
  }

  cancelAll(): void {
    this.#moves.cancelAll();
  }

  idle(): Promise<void> {
    return this.#moves.idle();
  }

  /** Nobody is listened to any more. */
  close(): void {
    this.#listener.close();
    this.#lobby.close();
  }

  #refusal(caller: Omit<Caller, "channel">): Refusal | undefined {
    const { frame } = caller;
    const { rules, concurrent } = this.#options;
    if (frame.type === "resume") return refusalOf(caller, rules, this.#ofSession(frame.session));
    // What is here is nothing to those who may hand nothing over.
    const unauthorised = refusalOf(caller, rules, undefined);
    if (unauthorised !== undefined) return unauthorised;
    if (this.#isStopping) return { code: "STOPPING", message: "this service is shutting down" };
    const waiting = this.#waitingFor(frame);
    if (waiting === undefined) {
      return { code: "NO_VM", message: `no VM is waited for here by the name of ${nameOf(frame.body)}` };
    }
    if ([...this.#moves.running].some((reception) => reception.waiting.key === waiting.key)) {
      return { code: "BUSY", message: `${nameOf(frame.body)} is being taken in already` };
    }
    if (this.#moves.running.size >= concurrent) {
      return { code: "BUSY", message: `${concurrent} VMs are being taken in already` };
    }
    return undefined;
  }

  #enter(caller: Caller): void {
    const { frame, channel, from } = caller;
    if (frame.type === "resume") {
      const reception = this.#ofSession(frame.session);
      if (reception === undefined) channel.destroy();
      else reception.sources.offer(caller);
      return;
    }
    const waiting = this.#waitingFor(frame);
    if (waiting === undefined) {
      channel.destroy();
      return;
    }
    const id = randomBytes(4).toString("hex");
    const reception: Reception = {
      move: new Move({ id, side: "destination", vm: nameOf(frame.body), peer: from }),
      waiting,
      session: frame.body.session,
      peer: caller.secure?.peer,
      sources: new OneSource(caller),
    };
    this.#moves.began(reception);
    void this.#run(reception);
  }

  async #run(reception: Reception): Promise<void> {
    const { move, waiting, sources } = reception;
    const { id } = move.subject;
    move.started();
    let isTouched = false;
    const listener: RecordListener = (event) => {
      move.listener(event);
      if (event.type === "phase" && event.phase === "iterating") isTouched = true;
    };
    try {
      const { vm } = await waiting.takeIn(sources, { id, signal: move.signal, listener });
      move.completed(vm);
      this.#prepared.delete(waiting.key);
    } catch (thrown) {
      move.endedWith(thrown);
      sources.refuse(toError(thrown).message);
      // QEMU has ended, with what it held. One that had got nothing yet waits on.
      if (isTouched) this.#prepared.delete(waiting.key);
    }
    this.#moves.ended(reception);
  }

  #ofSession(session: string): Reception | undefined {
    return [...this.#moves.running].find((reception) => reception.session === session);
  }

  #waitingFor({ body }: HelloFrame): WaitingVm | undefined {
    return this.prepared.find(({ names }) => isSameVm(names, body)) ?? this.#options.find?.(body);
  }
}

/** A UUID is worth more than a name, where both sides have one. */
function isSameVm(a: VmNames, b: VmNames): boolean {
  if (a.uuid !== undefined && b.uuid !== undefined) return a.uuid.toLowerCase() === b.uuid.toLowerCase();
  return a.name !== undefined && a.name === b.name;
}

function nameOf({ name, uuid }: VmNames): string {
  return name ?? uuid ?? "a VM without a name";
}

/** The connections of the one source that brings this VM. Whoever waits for another source waits in vain. */
class OneSource implements SourceQueue {
  readonly #first: Caller;
  #wasTaken = false;
  readonly #kept: Caller[] = [];
  #offer: ((channel: Channel, from: string) => void) | undefined;

  constructor(first: Caller) {
    this.#first = first;
  }

  async next(signal?: AbortSignal): Promise<Caller> {
    throwIfCancelled(signal);
    if (this.#wasTaken) {
      throw new DeltaveeError("MIGRATION_FAILED", `${this.#first.from} was no source for this VM`);
    }
    this.#wasTaken = true;
    return this.#first;
  }

  offer(caller: Caller): void {
    if (this.#offer !== undefined) this.#offer(caller.channel, caller.from);
    else if (this.#kept.length < KEPT_MAX) this.#kept.push(caller);
    else caller.channel.destroy();
  }

  giveOthersTo(offer: (channel: Channel, from: string) => void): void {
    this.#offer = offer;
    for (const { channel, from } of this.#kept.splice(0)) offer(channel, from);
  }

  keepOthers(): void {
    this.#offer = undefined;
  }

  close(): void {
    this.#offer = undefined;
    for (const { channel } of this.#kept.splice(0)) channel.destroy();
  }

  /** The VM could not be prepared for it: unless it was taken, it is told so. */
  refuse(why: string): void {
    this.close();
    if (this.#wasTaken) return;
    this.#wasTaken = true;
    const { channel } = this.#first;
    channel.listen({ data: () => {}, drained: () => {}, ended: () => {}, failed: () => {} });
    channel.write(encodeFrame(refuseFrame("INTERNAL", why)));
    channel.end();
    systemClock.after(REFUSED_CLOSES_MS, () => channel.destroy());
  }
}
