// Engines that are broken on purpose, each in one way that would lose, double or damage a guest, or hang. They show
// that the simulation would notice. Nothing of it is in the engines: what they work with is wrapped, or a method of
// theirs is replaced for as long as the mutation lasts.

import { Handover } from "../../src/engine/handover.ts";
import { BatchSink } from "../../src/engine/pages/batch-sink.ts";
import { StreamSink } from "../../src/engine/pages/stream-sink.ts";
import type { Channel, IncomingVm, OutgoingEnd, OutgoingVm } from "../../src/engine/ports.ts";
import { TunnelPeer } from "../../src/engine/transport/tunnel-peer.ts";
import type { KernelMemory } from "../../src/kernel/memory.ts";
import { PageCache, type PageCacheOptions } from "../../src/memory/page-cache.ts";
import { ReturnPathType } from "../../src/stream/format.ts";
import { returnPathMessage } from "../../src/stream/return-path.ts";
import { SimProcess } from "./sim-process.ts";
import type { Sabotage } from "./simulation.ts";

export interface Mutation {
  name: string;
  sabotage?: Sabotage;
  /** Replaces something for all engines; returns what puts it back. */
  begin?: () => () => void;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "the destination runs the guest without waiting for COMMIT",
    sabotage: {
      incoming: (vm) =>
        changed<IncomingVm>(vm, {
          loaded: async () => {
            await vm.loaded();
            await vm.resume();
          },
        }),
    },
  },
  {
    name: "the source takes the guest back after it has committed",
    begin: () => replaceGetter(Handover.prototype, "committed", () => false),
  },
  {
    name: "COMMIT goes out before the source hypervisor has completed",
    sabotage: { outgoing: endsWithTheVerdict },
  },
  {
    name: "DATA is acknowledged before the hypervisor has taken it",
    sabotage: {
      incoming: (vm) =>
        changed<IncomingVm>(vm, {
          begin: async (mayPostcopy) => withWrite(await vm.begin(mayPostcopy), writtenAtOnce),
        }),
    },
  },
  {
    name: "a page is left out now and then",
    begin: () => {
      let pages = 0;
      const skips = () => ++pages % 20 === 0;
      const undoBatch = replaceMethod(BatchSink.prototype, "wholePage", (original) => {
        return (...page) => (skips() ? true : original(...page));
      });
      const undoStream = replaceMethod(StreamSink.prototype, "wholePage", (original) => {
        return (...page) => (skips() ? true : original(...page));
      });
      return () => {
        undoBatch();
        undoStream();
      };
    },
  },
  {
    name: "the page cache misses an update, so that deltas are made against a stale page",
    sabotage: { cache: (options) => new StaleCache(options) },
  },
  {
    name: "nobody's patience ever ends",
    begin: () =>
      replaceMethod(SimProcess.prototype, "after", (original) => {
        return (delayMs, callback) => (delayMs >= 5000 ? () => {} : original(delayMs, callback));
      }),
  },
  {
    name: "the destination reads from the link although its hypervisor is behind",
    begin: () => replaceMethod(TunnelPeer.prototype, "stall", () => () => {}),
  },
  {
    name: "what a broken connection has lost is not sent again",
    begin: () => replaceMethod(TunnelPeer.prototype, "sendAgain", () => () => true),
  },
  {
    name: "the source says that the guest runs without having asked",
    sabotage: { outgoing: (vm) => changed<OutgoingVm>(vm, { isRunning: async () => true }) },
  },
  {
    name: "post-copy: the destination runs the guest as soon as it could, without waiting for COMMIT",
    sabotage: {
      incoming: (vm) => {
        if (vm.ready === undefined) return vm;
        const ready = async () => {
          await vm.ready?.();
          await vm.resume();
        };
        return changed<IncomingVm>(vm, { ready });
      },
    },
  },
  {
    name: "post-copy: the source hypervisor is told at once that all is well",
    sabotage: { outgoing: endsPostcopyAtOnce },
  },
  {
    name: "post-copy: a request for a page is lost now and then",
    sabotage: {
      outgoing: (vm) => {
        let requests = 0;
        const isLost = (bytes: Uint8Array) => REQUESTS.has(bytes[1]!) && ++requests % 3 === 0;
        return changed<OutgoingVm>(vm, {
          begin: async () =>
            withWrite(
              await vm.begin(),
              (channel, bytes, written) => isLost(bytes) || channel.write(bytes, written),
            ),
        });
      },
    },
  },
  {
    name: "a guest that was paused is told to run at the destination",
    sabotage: {
      outgoing: (vm) => changed<OutgoingVm>(vm, { wasRunning: true }),
    },
  },
];

const REQUESTS: ReadonlySet<number> = new Set([ReturnPathType.REQ_PAGES_ID, ReturnPathType.REQ_PAGES]);

/** Gives the verdict when the guest is about to run at the destination, with pages missing there. */
function endsPostcopyAtOnce(vm: OutgoingVm): OutgoingVm {
  if (vm.startPostcopy === undefined) return vm;
  let channel: Channel | undefined;
  const begin = async () => {
    channel = await vm.begin();
    return channel;
  };
  const startPostcopy = async () => {
    await vm.startPostcopy?.();
    channel?.write(returnPathMessage(ReturnPathType.SHUT, 0));
  };
  return changed<OutgoingVm>(vm, { begin, startPostcopy });
}

/** The same object, but for what is given. */
function changed<Port extends object>(port: Port, changes: Partial<Port>): Port {
  return new Proxy(port, {
    get: (target, name) =>
      Object.hasOwn(changes, name) ? Reflect.get(changes, name) : Reflect.get(target, name, target),
  });
}

function withWrite(
  channel: Channel,
  write: (channel: Channel, bytes: Uint8Array, written?: () => void) => boolean,
): Channel {
  return {
    listen: (listener) => channel.listen(listener),
    write: (bytes, written) => write(channel, bytes, written),
    pause: () => channel.pause(),
    resume: () => channel.resume(),
    end: () => channel.end(),
    destroy: () => channel.destroy(),
  };
}

function writtenAtOnce(channel: Channel, bytes: Uint8Array, written?: () => void): boolean {
  const flows = channel.write(Buffer.from(bytes));
  if (written !== undefined) queueMicrotask(written);
  return flows;
}

/** Takes the verdict that it is given for the end that it is going to have. */
function endsWithTheVerdict(vm: OutgoingVm): OutgoingVm {
  const accepted = returnPathMessage(ReturnPathType.SHUT, 0);
  let resolve: (end: OutgoingEnd) => void = () => {};
  const ended = new Promise<OutgoingEnd>((resolveEnded) => {
    resolve = resolveEnded;
  });
  void vm.ended.then(resolve);
  const begin = async () =>
    withWrite(await vm.begin(), (channel, bytes, written) => {
      if (accepted.equals(bytes)) resolve({ outcome: "completed" });
      return channel.write(bytes, written);
    });
  return changed<OutgoingVm>(vm, { begin, ended });
}

class StaleCache extends PageCache {
  readonly #elsewhere: number;
  #reservations = 0;
  #isMissed = false;

  constructor(options: PageCacheOptions & { memory?: KernelMemory }) {
    super(options);
    this.#elsewhere = options.memory!.allocate(options.pageBytes, options.pageBytes);
  }

  override reserve(blockIndex: number, pageIndex: number): number {
    this.#isMissed = ++this.#reservations % 5 === 0;
    return super.reserve(blockIndex, pageIndex);
  }

  override addressOf(slot: number): number {
    const address = this.#isMissed ? this.#elsewhere : super.addressOf(slot);
    this.#isMissed = false;
    return address;
  }
}

type Method = (...parameters: never[]) => unknown;

function replaceMethod<Name extends string, Owner extends Record<Name, Method>>(
  owner: Owner,
  name: Name,
  replacement: (original: Owner[Name]) => (...parameters: Parameters<Owner[Name]>) => ReturnType<Owner[Name]>,
): () => void {
  const original = owner[name];
  const replaced = function (this: Owner, ...parameters: Parameters<Owner[Name]>) {
    return replacement(original.bind(this) as Owner[Name])(...parameters);
  };
  Object.defineProperty(owner, name, { value: replaced, configurable: true, writable: true });
  return () => Object.defineProperty(owner, name, { value: original, configurable: true, writable: true });
}

function replaceGetter<Owner extends object>(
  owner: Owner,
  name: keyof Owner & string,
  get: () => unknown,
): () => void {
  const original = Object.getOwnPropertyDescriptor(owner, name)!;
  Object.defineProperty(owner, name, { get, configurable: true });
  return () => Object.defineProperty(owner, name, original);
}
