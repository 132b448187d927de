// Connections of would-be sources, as `deltavee receive` has them: there is one VM to take in. The first that may hand
// it over, then those that come while it does, among them perhaps itself with another connection.

import { systemClock } from "../base/clock.ts";
import { RareNotices } from "../base/rare-notices.ts";
import type { Channel } from "../engine/ports.ts";
import { type Address, type Listener, listen } from "../link/address.ts";
import { type Caller, Lobby } from "../link/lobby.ts";
import type { TlsIdentity } from "../link/tls/identity.ts";
import type { Peer } from "../link/tls/secure.ts";
import { type AllowRule, refusalOf } from "./admission.ts";
import { throwIfCancelled, unlessCancelled } from "./run.ts";

/** Callers who came when an earlier one was just being dismissed. */
const KEPT_MAX = 8;

export interface SourcesOptions {
  identity: TlsIdentity | undefined;
  rules: readonly AllowRule[];
  notice: (text: string) => void;
}

/** Connections of would-be sources of one VM, however they come in. */
export interface SourceQueue {
  /** The next one that may hand the VM over. @throws CancelledError when none is waited for any more */
  next(signal?: AbortSignal): Promise<Caller>;
  /** Those that come while a migration is under way: its source may be among them. */
  giveOthersTo(offer: (channel: Channel, from: string) => void): void;
  /** There is no migration any more; perhaps there will be another one. */
  keepOthers(): void;
  close(): void;
}

export class Sources implements SourceQueue {
  readonly #lobby: Lobby;
  readonly #kept: Caller[] = [];
  #listener!: Listener;
  #take: (caller: Caller) => void = (caller) => this.#keep(caller);
  /** Whose migration is under way. */
  #current: { readonly peer: Peer | undefined } | undefined;

  static async listen(address: Address, options: SourcesOptions): Promise<Sources> {
    const sources = new Sources(options);
    const handlers = {
      onConnection: sources.#lobby.connected.bind(sources.#lobby),
      onError: (error: Error) => options.notice(error.message),
    };
    sources.#listener = await listen(address, handlers, { pauseOnConnect: true });
    return sources;
  }

  private constructor({ identity, rules, notice }: SourcesOptions) {
    const notices = new RareNotices(systemClock, notice);
    this.#lobby = new Lobby({
      clock: systemClock,
      identity,
      refusal: (caller) => refusalOf(caller, rules, this.#current),
      enter: (caller) => this.#take(caller),
      turnedAway: (text) => notices.say(text),
    });
  }

  get address(): Address {
    return this.#listener.address;
  }

  /** The first one that may hand the VM over, from now on. @throws CancelledError when it is not waited for any more */
  async next(signal?: AbortSignal): Promise<Caller> {
    throwIfCancelled(signal);
    this.#current = undefined;
    const caller =
      this.#kept.shift() ??
      (await unlessCancelled(this.#nextToCome(), signal, ({ channel }) => channel.destroy()));
    this.#current = { peer: caller.secure?.peer };
    return caller;
  }

  #nextToCome(): Promise<Caller> {
    return new Promise((resolve) => {
      this.#take = (caller) => {
        this.keepOthers();
        resolve(caller);
      };
    });
  }

  giveOthersTo(offer: (channel: Channel, from: string) => void): void {
    this.#take = ({ channel, from }) => offer(channel, from);
    for (const { channel, from } of this.#kept.splice(0)) offer(channel, from);
  }

  keepOthers(): void {
    this.#take = (caller) => this.#keep(caller);
  }

  close(): void {
    this.#listener.close();
    this.#lobby.close();
    for (const { channel } of this.#kept.splice(0)) channel.destroy();
    this.#take = ({ channel }) => channel.destroy();
  }

  #keep(caller: Caller): void {
    if (this.#kept.length === KEPT_MAX) this.#kept.shift()!.channel.destroy();
    this.#kept.push(caller);
  }
}
