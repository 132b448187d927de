// A reception on this host, put together: who may come in, the destination engine, the VM's hypervisor, and what is
// kept beside: the run record and the state file. What `deltavee receive`, `serve` and `proxy` and the library's receive()
// run. One VM, then it ends.

import { randomBytes } from "node:crypto";
import { systemClock } from "../base/clock.ts";
import { RareNotices } from "../base/rare-notices.ts";
import { version } from "../base/version.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import type { DestinationOutcome } from "../engine/destination/options.ts";
import { DestinationEngine } from "../engine/destination.ts";
import type { Address } from "../link/address.ts";
import type { KeptJournal } from "../state/keep.ts";
import type { Welcome } from "../wire/bodies.ts";
import { type AllowRule, checkRules } from "./admission.ts";
import { makeBatchCoder, makeHome } from "./engine-parts.ts";
import type { DestinationGuest, Notice, OpenDestination } from "./guest.ts";
import { chooseIdentity, isLoopback, PLAINTEXT_NOTICE, type SecurityOptions } from "./identity.ts";
import { type OpenRun, type RunResult, summaryOf, throwIfCancelled, unlessCancelled } from "./run.ts";
import { type SourceQueue, Sources } from "./sources.ts";

export interface TakeInSpec {
  guest: DestinationGuest;
  /** Leave the guest paused on arrival. */
  paused: boolean;
  baselineBytesMax: number;
  reconnectTimeoutMs: number;
  stateDir?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface ReceptionSpec extends TakeInSpec, SecurityOptions {
  listen: Address;
  allow: readonly AllowRule[];
  /** Called once sources can connect, with the port that was chosen. */
  listening: (address: Address) => void;
}

/** @throws DeltaveeError when no guest has come: `vm` says where it is */
export async function runReception(spec: ReceptionSpec, openRun: OpenRun): Promise<RunResult> {
  throwIfCancelled(spec.signal);
  const { listen, allow: rules, listening } = spec;
  const identity = chooseIdentity(listen, "server", spec);
  checkRules(rules, identity !== undefined);
  const openSources = async (notice: Notice) => {
    if (identity === undefined && !isLoopback(listen)) notice(PLAINTEXT_NOTICE);
    const sources = await Sources.listen(listen, { identity, rules, notice });
    listening(sources.address);
    return sources;
  };
  return takeIn(spec, openSources, openRun);
}

/** Takes the VM in from one of the sources. @throws DeltaveeError when no guest has come: `vm` says where it is */
export async function takeIn(
  spec: TakeInSpec,
  openSources: (notice: Notice) => Promise<SourceQueue>,
  openRun: OpenRun,
): Promise<RunResult> {
  const { signal } = spec;
  throwIfCancelled(signal);
  let journal: KeptJournal | undefined;
  const run = await openRun([(event) => journal?.listener(event)]);
  const { record } = run;
  const notice: Notice = (message) => record.add({ type: "notice", message });
  // Anybody whom this host trusts can cause them, as often as he likes.
  const rareNotices = new RareNotices(systemClock, notice);
  let guest: OpenDestination | undefined;
  try {
    const opening = spec.guest.open({ stateDir: spec.stateDir, notice });
    guest = await unlessCancelled(opening, signal, (late) => void late.close());
    const { vm, identity: hypervisor, keepJournal } = guest;
    record.add({
      type: "run",
      version: 1,
      startedAt: new Date().toISOString(),
      deltavee: version,
      side: "destination",
      mode: "tunnel",
      method: "delta",
      hypervisor: vm.description,
    });
    const sources = await openSources(notice);
    const own: Welcome = {
      deltavee: version,
      entropyCodecs: [...ENTROPY_CODEC_IDS],
      hypervisor,
    };
    if (spec.reconnectTimeoutMs >= 1) {
      const timeoutMs = Math.round(spec.reconnectTimeoutMs);
      own.resumption = { token: randomBytes(16).toString("hex"), timeoutMs };
    }
    let outcome: DestinationOutcome;
    try {
      do {
        const { channel, from } = await sources.next(signal);
        const home = makeHome();
        const coder = makeBatchCoder(home);
        const engine = new DestinationEngine({
          ...home,
          coder,
          channel,
          vm,
          own,
          paused: spec.paused,
          record,
          baselineBytesMax: spec.baselineBytesMax,
          welcomed: ({ session }) => {
            journal = keepJournal?.({ session, peer: from });
          },
        });
        sources.giveOthersTo((other, of) => engine.offer(other, of));
        const cancel = () => engine.cancel();
        if (signal?.aborted) cancel();
        else signal?.addEventListener("abort", cancel);
        outcome = await engine.run();
        sources.keepOthers();
        signal?.removeEventListener("abort", cancel);
        await coder.close();
        if (!outcome.welcomed)
          rareNotices.say(`${from} was no source for this VM: ${outcome.error?.message}`);
      } while (!outcome.welcomed && outcome.error?.code !== "CANCELLED");
    } finally {
      sources.close();
    }
    await guest.close();
    guest = undefined;
    journal?.end(outcome.vm, outcome.error);
    const summary = summaryOf(run);
    await run.finish();
    if (outcome.error !== undefined) throw outcome.error;
    return { vm: outcome.vm, summary };
  } finally {
    await guest?.close();
    journal?.remove();
    await run.close();
  }
}
