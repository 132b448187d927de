// `deltavee migrate`: moves a VM that runs under a QEMU on this machine. Sets up the parts and lets the source
// engine do the work.

import { randomBytes } from "node:crypto";
import { cpus, totalmem } from "node:os";
import { Command, Option } from "commander";
import { systemClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import { formatBytes, formatMs, parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { version } from "../base/version.ts";
import type { DeltaCodecId } from "../codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES } from "../codec/delta/delta-codecs.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import type { Channel } from "../engine/ports.ts";
import { SourceEngine } from "../engine/source.ts";
import {
  isStallPolicy,
  STALL_POLICIES,
  STALL_POLICY_DEFAULT,
  type StallPolicy,
} from "../engine/stall-policies.ts";
import { processListeningOn } from "../hypervisor/qemu/guest-memory.ts";
import { QemuOutgoing } from "../hypervisor/qemu/outgoing.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type Address, connect, formatAddress, parseAddress } from "../link/address.ts";
import { PacedChannel } from "../link/paced-channel.ts";
import { SocketChannel } from "../link/socket-channel.ts";
import type { SecureDialer } from "../link/tls/dialer.ts";
import { PageCache } from "../memory/page-cache.ts";
import { POLICIES } from "../memory/policy/all.ts";
import { HISTORY } from "../memory/policy/history.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import type { OpenTrace } from "../trace/file.ts";
import { KEEPALIVE_MS } from "../wire/frame.ts";
import type { WorkerBatchCoder } from "../worker/worker-batch-coder.ts";
import {
  type DisplayOptions,
  onInterrupt,
  openShownRun,
  PLAINTEXT_NOTICE,
  parseQmpAddress,
  RECONNECT_MS_DEFAULT,
} from "./common.ts";
import { makeBatchCoder, makeHome } from "./engine-parts.ts";
import { LiveForecast, type LiveForecastOptions, sampleInWorker } from "./plan/live-forecast.ts";
import { chooseIdentity, isLoopback, type SecurityOptions, withSecurityOptions } from "./security.ts";
import {
  type KeptJournal,
  keepJournal,
  leftByTheDead,
  openStateFolder,
  STATE_DIR_HELP,
} from "./state/keep.ts";

interface Options extends DisplayOptions, SecurityOptions {
  qmp: QmpAddress;
  to: Address;
  tlsHostname?: string;
  maxDowntime: number;
  maxTime?: number;
  maxBytes?: number;
  onStall: StallPolicy;
  maxBandwidth?: number;
  reconnectTimeout?: number;
  switchoverTimeout?: number;
  cacheSize?: number;
  cachePolicy: PolicyKind;
  codec?: DeltaCodecId;
  trace?: string;
  contents?: true;
  standard?: true;
  stateDir?: string;
  forecast: boolean;
}

const CONNECT_TIMEOUT_MS = 10_000;
/** Another attempt is better than patience: the link may be there again by now. */
const RECONNECT_ATTEMPT_MS = 3000;
const SWITCHOVER_TIMEOUT_MS_DEFAULT = 5000;
/** A destination that is there says so once a second: for less than this nobody can tell that it is not. */
const SWITCHOVER_TIMEOUT_MS_MIN = 2 * KEEPALIVE_MS;
/** QEMU's own default. */
const DOWNTIME_MS_DEFAULT = 300;
const CODEC_DEFAULT = "word-mask";
/** The page cache never takes more than this share of the machine unless it is told to. */
const CACHE_SHARE_MAX = 0.25;

const HELP = `
--to tcp:HOST:PORT or unix:PATH is direct mode: a stock QEMU started with -incoming waits there, nothing of
Deltavee's runs at the destination. --to deltavee://HOST:PORT is tunnel mode: "deltavee receive" waits there.

A tunnel that breaks is resumed: a link that is away for a while costs this while and nothing else, up to
--reconnect-timeout, and to that of "deltavee receive". Once the guest is stopped for the switchover, it waits for the
link for no longer than --switchover-timeout, and then goes on here, unless it has been given away already.

A tunnel to another host is encrypted, and both sides prove who they are: by certificates (--tls-dir), or as hosts that
were paired (deltavee pair). On loopback that is so where it is asked for (--tls-dir or --keys-dir). Direct mode is what
QEMU makes of it: plain text.

The guest runs here until everything has arrived. Ctrl-C, or a peer that dies, cancels the migration and the
guest goes on here. Exit codes: 0 moved, 1 failed, 2 wrong usage, 3 given up, 130 cancelled; the message says where
the VM is.

--max-downtime, --max-time and --max-bytes are promises: Deltavee says before it breaks one why it cannot keep it, and
at the limit gives up in good order (exit code 3). When it makes no progress it acts by --on-stall:
${stallPolicyHelp()}
With postcopy the guest is lost if the link breaks for good, or either host dies, before all of its RAM has arrived. In
direct mode the destination's QEMU must have been told before: migrate-set-capabilities, postcopy-ram on. In tunnel mode
"deltavee receive" sees to it, the guest can be taken back until the destination could run it, and a link that is away
for a while delays the pages that the guest waits for and nothing else.

SIGUSR2 (kill -USR2 PID) changes --max-downtime under way: any downtime will do from then on, and the guest is stopped at
the next best moment, though not before each page has been sent once.

Examples:
  To a QEMU started with -incoming tcp:0.0.0.0:4444:
    deltavee migrate --qmp /run/vm.qmp --to tcp:host2:4444 --max-downtime 100ms
  To a host where "deltavee receive --listen 0.0.0.0:4445 --qmp /run/vm.qmp" waits, with a record of the run:
    deltavee migrate --qmp /run/vm.qmp --to deltavee://host2:4445 --record run.ndjson
  A guest that may be slowed down, but must have moved, or not at all, within ten minutes:
    deltavee migrate --qmp /run/vm.qmp --to tcp:host2:4444 --on-stall throttle --max-time 10m
`;

const TRACE_HELP = `
All else is as with deltavee migrate: see "deltavee migrate --help" for modes, policies and exit codes.
`;

export function migrateCommand(): Command {
  return withMigrateOptions(new Command("migrate").description("move a running VM to another host"))
    .addHelpText("after", HELP)
    .action(migrate);
}

/** `deltavee trace record`: the same, with what became of each page written down. */
export function traceRecordCommand(): Command {
  const command = new Command("record")
    .description("move a running VM as deltavee migrate does, and write a page trace of it")
    .argument("<trace>", "the file to write")
    .option("--contents", "also the pages themselves: as large as all that the guest sends, and as secret");
  return withMigrateOptions(command)
    .addHelpText("after", TRACE_HELP)
    .action((trace: string, options: Options) => migrate({ ...options, trace }));
}

function withMigrateOptions(command: Command): Command {
  return withSecurityOptions(command)
    .option(
      "--tls-hostname <name>",
      "whom the destination's certificate must be for, if not for the host that --to names",
    )
    .requiredOption(
      "--qmp <socket>",
      "QMP monitor of the VM's QEMU: a path, or tcp:HOST:PORT",
      parseQmpAddress,
    )
    .requiredOption(
      "--to <address>",
      "tcp:HOST:PORT, unix:PATH (direct) or deltavee://HOST:PORT (tunnel)",
      parseDestination,
    )
    .addOption(
      new Option("--max-downtime <duration>", "longest time the guest may stand still, e.g. 100ms")
        .argParser(aboveZero(parseMs))
        .default(DOWNTIME_MS_DEFAULT, `${DOWNTIME_MS_DEFAULT}ms`),
    )
    .option(
      "--max-time <duration>",
      "give up when the guest has not moved by then, e.g. 10m (default: never)",
      aboveZero(parseMs),
    )
    .option(
      "--max-bytes <size>",
      "send no more than this, e.g. 5GB, then give up (default: no limit)",
      aboveZero(parseBytes),
    )
    .addOption(
      new Option(
        "--on-stall <policy>",
        `what to do when it makes no progress: ${Object.keys(STALL_POLICIES).join(", ")}`,
      )
        .argParser(parseStallPolicy)
        .default(STALL_POLICY_DEFAULT, STALL_POLICY_DEFAULT),
    )
    .option(
      "--max-bandwidth <rate>",
      "send no faster than this, e.g. 100mbit (default: as the link takes it)",
      parseBytesPerSecond,
    )
    .option(
      "--reconnect-timeout <duration>",
      `how long a tunnel that broke is tried to be resumed, 0s: not at all (default: ${RECONNECT_MS_DEFAULT / 1000}s)`,
      parseMs,
    )
    .option(
      "--switchover-timeout <duration>",
      "how long the stopped guest may wait for a tunnel that broke, at least 2s (default: 5s)",
      parseSwitchoverTimeout,
    )
    .option(
      "--cache-size <size>",
      "memory for the page cache (default: the guest's RAM, at most a quarter of the host's)",
      parseBytes,
    )
    .addOption(
      new Option("--cache-policy <name>", "which pages are kept when not all can be (docs/page-cache.md)")
        .argParser(parsePolicy)
        .default(HISTORY, HISTORY.name),
    )
    .option(
      "--codec <name>",
      `how a page that the destination knows is coded in the tunnel (default: ${CODEC_DEFAULT})`,
      parseCodec,
    )
    .option("--standard", "send every page whole, as standard pre-copy does: for comparison")
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--no-forecast", "do not sample the guest's memory to say what is to be expected")
    .option("--record <file>", "write the run record (NDJSON)")
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors");
}

async function migrate(options: Options): Promise<void> {
  const tunnel = options.to.kind === "deltavee";
  const { reconnectTimeout, switchoverTimeout } = options;
  if (!tunnel && (reconnectTimeout !== undefined || switchoverTimeout !== undefined)) {
    throw new UsageError("Only a tunnel (--to deltavee://...) can be resumed: a stock QEMU cannot");
  }
  if (!tunnel && options.codec !== undefined) {
    throw new UsageError("--codec is for a tunnel (--to deltavee://...): a stock QEMU knows XBZRLE only");
  }
  if (options.standard && options.codec !== undefined) {
    throw new UsageError("--standard sends every page whole: there is nothing for --codec to code");
  }
  const { tlsDir, keysDir, insecurePlaintext, tlsHostname } = options;
  if (!tunnel && [tlsDir, keysDir, insecurePlaintext, tlsHostname].some((option) => option !== undefined)) {
    throw new UsageError(
      "TLS is for a tunnel (--to deltavee://...): in direct mode QEMU itself is at the other end",
    );
  }
  const identity = tunnel ? await chooseIdentity(options.to, "client", options) : undefined;
  let dialer: SecureDialer | undefined;
  if (identity !== undefined && options.to.kind !== "unix") {
    const tls = await import("../link/tls/dialer.ts");
    dialer = new tls.SecureDialer(options.to, identity, tlsHostname ?? options.to.host);
  }
  let journal: KeptJournal | undefined;
  let forecast: LiveForecast | undefined;
  const run = await openShownRun(options, (event) => {
    journal?.listener(event);
    forecast?.listener(event);
  });
  const { record } = run;
  // A record begins with what the run is; what there is to say before that is known comes after it.
  let early: string[] | undefined = [];
  const notice = (message: string) => {
    if (early === undefined) record.add({ type: "notice", message });
    else early.push(message);
  };
  let vm: QemuOutgoing | undefined;
  let engine: SourceEngine | undefined;
  let anyDowntime = false;
  let isOver = false;
  // From the beginning to the end: where nobody listens the signal ends the process, and QEMU keeps our settings.
  const allowAnyDowntime = () => {
    if (isOver) return;
    anyDowntime = true;
    notice("SIGUSR2: any downtime will do from now on");
    engine?.allowAnyDowntime();
  };
  process.on("SIGUSR2", allowAnyDowntime);
  let coder: WorkerBatchCoder | undefined;
  let trace: OpenTrace | undefined;
  try {
    if (options.trace !== undefined) {
      const { createTrace } = await import("../trace/file.ts");
      trace = await createTrace(options.trace, { contents: options.contents ?? false });
    }
    const states = openStateFolder(options.stateDir, notice);
    const left = leftByTheDead(states, options.qmp);
    const opened = await QemuOutgoing.open(options.qmp, {
      notice,
      mayThrottle: options.onStall === "throttle",
      mayPostcopy: options.onStall === "postcopy",
      guarded: !tunnel,
      left: left.settings,
    });
    vm = opened;
    const cacheBytesMax = cacheLimit(options.cacheSize, vm.guestRamBytes, notice);
    record.add({
      type: "run",
      version: 1,
      startedAt: new Date().toISOString(),
      deltavee: version,
      side: "source",
      mode: tunnel ? "tunnel" : "direct",
      method: options.standard ? "standard" : "delta",
      hypervisor: vm.description,
      destination: formatAddress(options.to),
      guestRamBytes: vm.guestRamBytes,
      downtimeMsMax: options.maxDowntime,
      ...(options.maxTime === undefined ? {} : { timeMsMax: options.maxTime }),
      ...(options.maxBytes === undefined ? {} : { wireBytesMax: options.maxBytes }),
      onStall: options.onStall,
      ...(options.maxBandwidth === undefined ? {} : { linkBytesPerSecondMax: options.maxBandwidth }),
      ...(options.standard ? {} : { cacheBytesMax }),
    });
    const unsaid = early;
    early = undefined;
    unsaid.forEach(notice);
    if (tunnel && dialer === undefined && !isLoopback(options.to)) notice(PLAINTEXT_NOTICE);
    const openChannel = async (timeoutMs: number): Promise<Channel> => {
      const channel =
        (await dialer?.connect(timeoutMs)) ?? new SocketChannel(await connect(options.to, timeoutMs));
      return options.maxBandwidth === undefined
        ? channel
        : new PacedChannel(channel, systemClock, options.maxBandwidth);
    };
    const home = makeHome();
    const channel = await openChannel(CONNECT_TIMEOUT_MS);
    const reconnect = {
      connect: () => openChannel(RECONNECT_ATTEMPT_MS),
      timeoutMs: reconnectTimeout ?? RECONNECT_MS_DEFAULT,
    };
    // From here on it has something to say: up to here QEMU was asked only, and Ctrl-C just ends this process.
    const session = dialer?.binding ?? randomBytes(16).toString("hex");
    journal = keepJournal(states, {
      subject: {
        session,
        side: "source",
        mode: tunnel ? "tunnel" : "direct",
        peer: formatAddress(options.to),
        settings: vm.settings,
      },
      qmp: options.qmp,
      notice,
      guestRuns: () => opened.wasRunning,
    });
    left.forget();
    coder = tunnel ? makeBatchCoder(home) : undefined;
    const names = tunnel ? await vm.names() : {};
    const source = new SourceEngine({
      ...home,
      vm,
      channel,
      ...(coder === undefined
        ? {}
        : {
            tunnel: {
              hello: {
                deltavee: version,
                session,
                hypervisor: { kind: "qemu", version: vm.version },
                entropyCodecs: [...ENTROPY_CODEC_IDS],
                guestRamBytes: vm.guestRamBytes,
                ...(options.onStall === "postcopy" ? { postcopy: true } : {}),
                ...names,
              },
              coder,
              deltaCodec: options.codec ?? parseCodec(CODEC_DEFAULT),
              ...(reconnect.timeoutMs === 0 ? {} : { reconnect }),
              switchoverTimeoutMs: switchoverTimeout ?? SWITCHOVER_TIMEOUT_MS_DEFAULT,
            },
          }),
      cacheFactory: options.standard
        ? undefined
        : (pageBytes, memory) =>
            new PageCache({ pageBytes, memory, limitBytes: cacheBytesMax, policy: options.cachePolicy }),
      downtimeMsMax: options.maxDowntime,
      timeMsMax: options.maxTime,
      wireBytesMax: options.maxBytes,
      onStall: options.onStall,
      record,
      defer: setImmediate,
      observer: trace?.writer,
      cpuMs,
      idleCoreMs,
    });
    engine = source;
    if (anyDowntime) engine.allowAnyDowntime();
    const release = onInterrupt(() => {
      if (source.cancel()) notice("Interrupted: giving the migration up, the guest goes on here");
      else notice("Too late to cancel: the guest belongs to the destination already");
    });
    if (options.forecast && !options.standard && vm.wasRunning) {
      forecast = beginForecast(vm, options, { cacheBytes: cacheBytesMax, record });
    }
    const { error, vm: where } = await source.run();
    isOver = true;
    release();
    forecast?.end();
    await closeTrace(trace, notice);
    trace = undefined;
    await vm.close();
    vm = undefined;
    journal?.end(where, error);
    await run.finish();
    if (error !== undefined) throw error;
  } finally {
    isOver = true;
    forecast?.end();
    await closeTrace(trace, notice);
    await coder?.close();
    await vm?.close();
    // Nothing was begun, or it is done.
    journal?.remove();
    await run.close();
    process.off("SIGUSR2", allowAnyDowntime);
  }
}

function beginForecast(
  vm: QemuOutgoing,
  { qmp, to, maxDowntime }: Options,
  rest: Pick<LiveForecastOptions, "cacheBytes" | "record">,
): LiveForecast {
  return new LiveForecast({
    ...rest,
    method: to.kind === "deltavee" ? "tunnel" : "direct",
    downtimeMsMax: maxDowntime,
    sample: async (signal) => sampleInWorker(await vm.locateMemory(processListeningOn(qmp)), signal),
  });
}

function cacheLimit(
  asked: number | undefined,
  guestRamBytes: number,
  notice: (message: string) => void,
): number {
  if (asked !== undefined) return asked;
  // The index takes 0.1 % on top of the pages themselves, video memory and firmware a little more.
  const whole = Math.ceil(guestRamBytes * 1.05) + 64 * 1024 * 1024;
  const share = Math.floor(totalmem() * CACHE_SHARE_MAX);
  if (whole > share)
    notice(`The page cache is ${formatBytes(share)}, smaller than the guest (see --cache-size)`);
  return Math.min(whole, share);
}

async function closeTrace(trace: OpenTrace | undefined, notice: (message: string) => void): Promise<void> {
  const incomplete = await trace?.close();
  if (incomplete !== undefined) notice(incomplete);
}

function parsePolicy(name: string): PolicyKind {
  const policy = POLICIES.find((candidate) => candidate.name === name);
  if (policy !== undefined) return policy;
  throw new UsageError(`There is no policy "${name}" (${POLICIES.map((each) => each.name).join(", ")})`);
}

function parseCodec(name: string): DeltaCodecId {
  const id = DELTA_CODEC_NAMES[name];
  if (id !== undefined) return id;
  throw new UsageError(`There is no codec "${name}" (${Object.keys(DELTA_CODEC_NAMES).join(", ")})`);
}

function parseStallPolicy(name: string): StallPolicy {
  if (isStallPolicy(name)) return name;
  throw new UsageError(`There is no policy "${name}" (${Object.keys(STALL_POLICIES).join(", ")})`);
}

function stallPolicyHelp(): string {
  return Object.entries(STALL_POLICIES)
    .map(([name, says]) => `  ${name.padEnd("switchover".length)}  ${says}`)
    .join("\n");
}

/** A promise of nothing is a mistake. */
function aboveZero(parse: (text: string) => number): (text: string) => number {
  return (text) => {
    const value = parse(text);
    if (value > 0) return value;
    throw new UsageError(`Must be above zero: "${text}"`);
  };
}

function parseSwitchoverTimeout(text: string): number {
  const timeoutMs = parseMs(text);
  if (timeoutMs >= SWITCHOVER_TIMEOUT_MS_MIN) return timeoutMs;
  throw new UsageError(`Must be at least ${formatMs(SWITCHOVER_TIMEOUT_MS_MIN)}: "${text}"`);
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function idleCoreMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.idle, 0);
}

/** @throws UsageError also for a port that nobody can listen on */
function parseDestination(text: string): Address {
  const address = parseAddress(text);
  if (address.kind !== "unix" && address.port === 0)
    throw new UsageError(`Port 0 is not a destination: "${text}"`);
  return address;
}
