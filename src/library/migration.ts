// A migration from this host, put together: the VM's hypervisor, the link, the source engine between them, and what is
// kept beside: the run record, the state file, a forecast, a page trace. What `deltavee migrate`, `serve` and `proxy` and
// the library's migrate() run.

import { readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { assert } from "../base/assert.ts";
import { DeltaveeError, UsageError } from "../base/errors.ts";
import { formatBytes, formatMs } from "../base/units.ts";
import { version } from "../base/version.ts";
import { DELTA_WORD_MASK, type DeltaCodecId } from "../codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import type { Channel, OutgoingVm } from "../engine/ports.ts";
import { measureDigestBytesPerSecond, openStoppedRam } from "../engine/ram-digests.ts";
import type { TunnelOptions } from "../engine/source/options.ts";
import { SourceEngine } from "../engine/source.ts";
import type { StallPolicy } from "../engine/switchover/stall-policies.ts";
import { formatAddress } from "../link/address.ts";
import { PageCache } from "../memory/page-cache.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import type { RunRecord } from "../record/writer.ts";
import type { KeptJournal } from "../state/keep.ts";
import type { OpenTrace } from "../trace/file.ts";
import type { WorkerBatchCoder } from "../worker/worker-batch-coder.ts";
import { makeBatchCoder, makeHome } from "./engine-parts.ts";
import { LiveForecast, type LiveForecastOptions } from "./forecast/live-forecast.ts";
import type { Notice, OpenSource, Sampler, SourceGuest } from "./guest.ts";
import { PLAINTEXT_NOTICE } from "./identity.ts";
import {
  CACHE_SHARE_MAX,
  type OpenRun,
  RECONNECT_MS_DEFAULT,
  type RunResult,
  reasonOf,
  summaryOf,
  throwIfCancelled,
  unlessCancelled,
} from "./run.ts";
import { SourceLink, type SourceLinkOptions } from "./source-link.ts";

export interface MigrationSpec extends SourceLinkOptions {
  guest: SourceGuest;
  downtimeMsMax: number;
  timeMsMax?: number | undefined;
  wireBytesMax?: number | undefined;
  onStall: StallPolicy;
  reconnectTimeoutMs?: number | undefined;
  switchoverTimeoutMs?: number | undefined;
  cacheBytesMax?: number | undefined;
  /** Where `cacheBytesMax` is not said: of the machine's memory at most this share. */
  cacheShareMax?: number | undefined;
  cachePolicy: PolicyKind;
  deltaCodec?: DeltaCodecId | undefined;
  /** Send every page whole. */
  isStandard?: boolean | undefined;
  /** Compare all RAM at both ends before the guest is given away. */
  isToVerify?: boolean | undefined;
  /** Page trace to be written. */
  trace?: { path: string; contents: boolean } | undefined;
  stateDir?: string | undefined;
  hasForecast: boolean;
  /** The guest stays at the source, where that can still be. A DeltaveeError as its reason is how the migration ends. */
  signal?: AbortSignal | undefined;
  /** From then on any downtime will do. */
  anyDowntime?: AbortSignal | undefined;
}

const CONNECT_TIMEOUT_MS = 10_000;
/** Another attempt is better than patience: the link may be there again by now. */
const RECONNECT_ATTEMPT_MS = 3000;
const SWITCHOVER_TIMEOUT_MS_DEFAULT = 5000;
/** Seconds since the start, and seconds for which each core was idle, added up (proc_uptime(5)). */
const UPTIME_FILE = "/proc/uptime";

/** @throws DeltaveeError when the guest has not moved: `vm` says where it is */
export async function runMigration(spec: MigrationSpec, openRun: OpenRun): Promise<RunResult> {
  checkSpec(spec);
  const { signal, anyDowntime } = spec;
  throwIfCancelled(signal);
  const isTunnel = spec.to.kind === "deltavee";
  const link = new SourceLink(spec);
  let journal: KeptJournal | undefined;
  let forecast: LiveForecast | undefined;
  const run = await openRun([
    (event) => {
      journal?.listener(event);
      forecast?.listener(event);
    },
  ]);
  const { record } = run;
  // A record begins with what the run is; what there is to say before that is known comes after it.
  let early: string[] | undefined = [];
  const notice: Notice = (message) => {
    if (early === undefined) record.add({ type: "notice", message });
    else early.push(message);
  };
  let guest: OpenSource | undefined;
  let engine: SourceEngine | undefined;
  let isOver = false;
  const allowAnyDowntime = () => {
    if (isOver) return;
    notice("Any downtime will do from now on");
    engine?.allowAnyDowntime();
  };
  anyDowntime?.addEventListener("abort", allowAnyDowntime);
  let coder: WorkerBatchCoder | undefined;
  let trace: OpenTrace | undefined;
  const cancel = () => {
    const why = reasonOf(signal);
    const isInTime = engine?.cancel(why);
    // A reason says itself: the migration ends with it.
    if (why !== undefined) return;
    if (isInTime) notice("Interrupted: giving the migration up, the guest goes on here");
    else notice("Too late to cancel: the guest belongs to the destination already");
  };
  try {
    if (spec.trace !== undefined) {
      const { createTrace } = await import("../trace/file.ts");
      trace = await createTrace(spec.trace.path, spec.trace);
    }
    const mode = isTunnel ? "tunnel" : "direct";
    const { onStall, stateDir } = spec;
    const opening = spec.guest.open({ mode, onStall, stateDir, record, notice });
    guest = await unlessCancelled(opening, signal, (late) => void late.close());
    const { vm } = guest;
    const cacheBytesMax = cacheLimit(spec, guest.guestRamBytes, notice);
    sayWhatItIs(record, spec, guest, cacheBytesMax);
    const unsaid = early;
    early = undefined;
    unsaid.forEach(notice);
    if (link.isOpenToOthers) notice(PLAINTEXT_NOTICE);
    if (spec.isToVerify) await prepareToVerify(guest, notice);
    const home = makeHome();
    const channel = await reach(link, { vm, record, signal });
    // From here on there is something to put right: up to here QEMU was asked only.
    const session = link.newSession();
    journal = guest.keepJournal?.({ session, mode, peer: formatAddress(spec.to) });
    coder = isTunnel ? makeBatchCoder(home) : undefined;
    const tunnel =
      coder === undefined ? undefined : await tunnelOptions(spec, { guest, session, coder, link });
    engine = new SourceEngine({
      ...home,
      vm,
      channel,
      ...(tunnel === undefined ? {} : { tunnel }),
      cacheFactory: spec.isStandard
        ? undefined
        : (pageBytes, memory) =>
            new PageCache({ pageBytes, memory, limitBytes: cacheBytesMax, policy: spec.cachePolicy }),
      downtimeMsMax: spec.downtimeMsMax,
      timeMsMax: spec.timeMsMax,
      wireBytesMax: spec.wireBytesMax,
      onStall,
      record,
      defer: setImmediate,
      observer: guest.observer ?? trace?.writer,
      cpuMs,
      idleCoreMs,
    });
    if (anyDowntime?.aborted) engine.allowAnyDowntime();
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel);
    if (spec.hasForecast && !spec.isStandard && vm.wasRunning) {
      forecast = beginForecast(guest, spec, { cacheBytes: cacheBytesMax, record });
    }
    const { error, vm: where } = await engine.run();
    isOver = true;
    signal?.removeEventListener("abort", cancel);
    forecast?.end();
    await closeTrace(trace, notice);
    trace = undefined;
    await guest.close();
    guest = undefined;
    journal?.end(where, error);
    const summary = summaryOf(run);
    await run.finish();
    if (error !== undefined) throw error;
    return { vm: where, summary };
  } finally {
    isOver = true;
    forecast?.end();
    await closeTrace(trace, notice);
    await coder?.close();
    await guest?.close();
    // Nothing was begun, or it is done.
    journal?.remove();
    await run.close();
    anyDowntime?.removeEventListener("abort", allowAnyDowntime);
    signal?.removeEventListener("abort", cancel);
  }
}

/** @throws UsageError for what contradicts itself */
function checkSpec(spec: MigrationSpec): void {
  const isTunnel = spec.to.kind === "deltavee";
  const { reconnectTimeoutMs, switchoverTimeoutMs, deltaCodec } = spec;
  if (!isTunnel && (reconnectTimeoutMs !== undefined || switchoverTimeoutMs !== undefined)) {
    throw new UsageError("Only a tunnel (--to deltavee://...) can be resumed: a stock QEMU cannot");
  }
  if (!isTunnel && deltaCodec !== undefined) {
    throw new UsageError("--codec is for a tunnel (--to deltavee://...): a stock QEMU knows XBZRLE only");
  }
  if (spec.isToVerify && !isTunnel) {
    throw new UsageError(
      "--verify is for a tunnel (--to deltavee://...): a stock QEMU does not wait to be compared",
    );
  }
  if (spec.isToVerify && spec.onStall === "postcopy") {
    throw new UsageError(
      "--verify compares all RAM before the guest runs: with --on-stall postcopy it may run before",
    );
  }
  if (spec.isStandard && deltaCodec !== undefined) {
    throw new UsageError("--standard sends every page whole: there is nothing for --codec to code");
  }
}

/** The destination. If it cannot be reached nothing has begun, and the guest stays as it is. @throws DeltaveeError */
async function reach(
  link: SourceLink,
  { vm, record, signal }: { vm: OutgoingVm; record: RunRecord; signal: AbortSignal | undefined },
): Promise<Channel> {
  try {
    return await unlessCancelled(link.open(CONNECT_TIMEOUT_MS), signal, (late) => late.destroy());
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) {
      thrown.vm = vm.wasRunning ? "running on source" : "paused on source";
      record.add({ type: "error", code: thrown.code, message: thrown.message, vm: thrown.vm });
    }
    throw thrown;
  }
}

function sayWhatItIs(record: RunRecord, spec: MigrationSpec, guest: OpenSource, cacheBytesMax: number): void {
  const { timeMsMax, wireBytesMax, linkBytesPerSecondMax } = spec;
  const { guestRamBytes } = guest;
  record.add({
    type: "run",
    version: 1,
    startedAt: new Date().toISOString(),
    deltavee: version,
    side: "source",
    mode: spec.to.kind === "deltavee" ? "tunnel" : "direct",
    method: spec.isStandard ? "standard" : "delta",
    hypervisor: guest.vm.description,
    destination: formatAddress(spec.to),
    ...(guestRamBytes === undefined ? {} : { guestRamBytes }),
    downtimeMsMax: spec.downtimeMsMax,
    ...(timeMsMax === undefined ? {} : { timeMsMax }),
    ...(wireBytesMax === undefined ? {} : { wireBytesMax }),
    onStall: spec.onStall,
    ...(linkBytesPerSecondMax === undefined ? {} : { linkBytesPerSecondMax }),
    ...(spec.isStandard ? {} : { cacheBytesMax }),
  });
}

async function tunnelOptions(
  spec: MigrationSpec,
  parts: { guest: OpenSource; session: string; coder: WorkerBatchCoder; link: SourceLink },
): Promise<TunnelOptions> {
  const timeoutMs = spec.reconnectTimeoutMs ?? RECONNECT_MS_DEFAULT;
  const { guest, session, coder, link } = parts;
  const { guestRamBytes } = guest;
  const names = await guest.names();
  return {
    hello: {
      deltavee: version,
      session,
      hypervisor: guest.identity,
      entropyCodecs: [...ENTROPY_CODEC_IDS],
      ...(guestRamBytes === undefined ? {} : { guestRamBytes }),
      ...(spec.onStall === "postcopy" ? { postcopy: true } : {}),
      ...(spec.isToVerify ? { verify: true } : {}),
      ...names,
    },
    coder,
    deltaCodec: spec.deltaCodec ?? DELTA_WORD_MASK,
    ...(timeoutMs === 0 ? {} : { reconnect: { connect: () => link.open(RECONNECT_ATTEMPT_MS), timeoutMs } }),
    switchoverTimeoutMs: spec.switchoverTimeoutMs ?? SWITCHOVER_TIMEOUT_MS_DEFAULT,
  };
}

/** Finds out at once whether it can be done here, and says what it costs. @throws DeltaveeError VERIFY_UNAVAILABLE */
async function prepareToVerify({ vm, guestRamBytes }: OpenSource, notice: Notice): Promise<void> {
  (await openStoppedRam(vm)).close();
  assert(guestRamBytes !== undefined, "whoever shows the RAM knows how much there is");
  const aboutMs = (guestRamBytes * 1000) / measureDigestBytesPerSecond();
  notice(
    `--verify: the guest will stand still for at least ${formatMs(aboutMs)} longer, which --max-downtime does not count, ` +
      `while ${formatBytes(guestRamBytes)} are read and hashed at both ends`,
  );
}

/** Undefined where nothing can look at the guest's memory. */
function beginForecast(
  { sampler }: OpenSource,
  { to, downtimeMsMax }: MigrationSpec,
  rest: Pick<LiveForecastOptions, "cacheBytes" | "record">,
): LiveForecast | undefined {
  if (sampler === undefined) return undefined;
  const method = to.kind === "deltavee" ? "tunnel" : "direct";
  const sample: Sampler = async (signal) => (await sampler())(signal);
  return new LiveForecast({ ...rest, method, downtimeMsMax, sample });
}

function cacheLimit(
  { cacheBytesMax: asked, cacheShareMax = CACHE_SHARE_MAX }: MigrationSpec,
  guestRamBytes: number | undefined,
  notice: Notice,
): number {
  if (asked !== undefined) return asked;
  const share = Math.floor(totalmem() * cacheShareMax);
  if (guestRamBytes === undefined) return share;
  // The index takes 0.1 % on top of the pages themselves, video memory and firmware a little more.
  const whole = Math.ceil(guestRamBytes * 1.05) + 64 * 1024 * 1024;
  if (whole > share)
    notice(`The page cache is ${formatBytes(share)}, smaller than the guest (see --cache-size)`);
  return Math.min(whole, share);
}

async function closeTrace(trace: OpenTrace | undefined, notice: Notice): Promise<void> {
  const incomplete = await trace?.close();
  if (incomplete !== undefined) notice(incomplete);
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Time for which the cores of this machine have had nothing to do, all of them together. */
function idleCoreMs(): number {
  try {
    // One line, where os.cpus() reads several files for each core.
    return Number(readFileSync(UPTIME_FILE, "latin1").split(" ")[1]) * 1000;
  } catch {
    // Not a Linux.
    return cpus().reduce((sum, { times }) => sum + times.idle, 0);
  }
}
