// `deltavee migrate`: moves a VM that runs under a QEMU on this machine. Sets up the parts and lets the source
// engine do the work.

import { Command, Option } from "commander";
import { UsageError } from "../base/errors.ts";
import { parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import type { DeltaCodecId } from "../codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES } from "../codec/delta/delta-codecs.ts";
import {
  STALL_POLICIES,
  STALL_POLICY_DEFAULT,
  type StallPolicy,
} from "../engine/switchover/stall-policies.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../engine/switchover/switchover.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import type { SecurityOptions } from "../library/identity.ts";
import { runMigration } from "../library/migration.ts";
import { checkSwitchoverTimeout, parseCodec, parsePolicy, parseStallPolicy } from "../library/parse.ts";
import { parseDestination, parseQmpAddress } from "../library/parse-address.ts";
import { qemuSource } from "../library/qemu-source.ts";
import { RECONNECT_MS_DEFAULT } from "../library/run.ts";
import type { Address } from "../link/address.ts";
import { POLICIES } from "../memory/policy/all.ts";
import { HISTORY } from "../memory/policy/history.ts";
import type { PolicyKind } from "../memory/policy/policy.ts";
import { STATE_DIR_HELP } from "../state/keep.ts";
import { type DisplayOptions, interruption, openShownRun } from "./common.ts";
import { uiOption } from "./live-page.ts";
import { withSecurityOptions } from "./security.ts";

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
  verify?: true;
}

const CODEC_DEFAULT = "word-mask";

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
  The same, watched in a browser at http://127.0.0.1:9437/:
    deltavee migrate --qmp /run/vm.qmp --to deltavee://host2:4445 --ui
  A guest that may be slowed down, but must have moved, or not at all, within ten minutes:
    deltavee migrate --qmp /run/vm.qmp --to tcp:host2:4444 --on-stall throttle --max-time 10m
`;

const TRACE_HELP = `
All else is as with deltavee migrate: see "deltavee migrate --help" for modes, policies and exit codes.

Example:
  deltavee trace record vm.trace --qmp /run/vm.qmp --to tcp:host2:4444
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
        .default(DOWNTIME_MS_MAX_DEFAULT, `${DOWNTIME_MS_MAX_DEFAULT}ms`),
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
      new Option("--on-stall <policy>", "what to do when it makes no progress")
        .choices(Object.keys(STALL_POLICIES))
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
        .choices(POLICIES.map(({ name }) => name))
        .argParser(parsePolicy)
        .default(HISTORY, HISTORY.name),
    )
    .addOption(
      new Option(
        "--codec <name>",
        `how a page that the destination knows is coded in the tunnel (default: ${CODEC_DEFAULT})`,
      )
        .choices(Object.keys(DELTA_CODEC_NAMES))
        .argParser(parseCodec),
    )
    .option(
      "--verify",
      "compare all RAM at both ends before the guest is given away: it stands still longer for that (tunnel only)",
    )
    .option("--standard", "send every page whole, as standard pre-copy does: for comparison")
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--no-forecast", "do not sample the guest's memory to say what is to be expected")
    .option("--record <file>", "write the run record (NDJSON)")
    .addOption(uiOption())
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors");
}

async function migrate(options: Options): Promise<void> {
  const { signal, release } = interruption();
  const anyDowntime = new AbortController();
  // From the beginning to the end: where nobody listens the signal ends the process, and QEMU keeps our settings.
  const allowAnyDowntime = () => anyDowntime.abort();
  process.on("SIGUSR2", allowAnyDowntime);
  const { trace, contents = false } = options;
  try {
    await runMigration(
      {
        ...options,
        guest: qemuSource(options.qmp),
        downtimeMsMax: options.maxDowntime,
        timeMsMax: options.maxTime,
        wireBytesMax: options.maxBytes,
        linkBytesPerSecondMax: options.maxBandwidth,
        reconnectTimeoutMs: options.reconnectTimeout,
        switchoverTimeoutMs: options.switchoverTimeout,
        cacheBytesMax: options.cacheSize,
        deltaCodec: options.codec,
        isStandard: options.standard,
        isToVerify: options.verify,
        hasForecast: options.forecast,
        trace: trace === undefined ? undefined : { path: trace, contents },
        signal,
        anyDowntime: anyDowntime.signal,
      },
      (first) => openShownRun(options, ...first),
    );
  } finally {
    process.off("SIGUSR2", allowAnyDowntime);
    release();
  }
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
  return checkSwitchoverTimeout(parseMs(text), text);
}
