// `deltavee receive`: takes a VM in from "deltavee migrate --to deltavee://..." and hands it to a QEMU on this
// machine that was started with -incoming defer. One VM, then it ends.

import { Command, Option } from "commander";
import { parseBytes, parseMs } from "../base/units.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type AllowRule, parseAllow } from "../library/admission.ts";
import type { SecurityOptions } from "../library/identity.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { qemuDestination } from "../library/qemu-destination.ts";
import { runReception } from "../library/reception.ts";
import { RECONNECT_MS_DEFAULT } from "../library/run.ts";
import { type Address, formatAddress, parseAddress } from "../link/address.ts";
import { STATE_DIR_HELP } from "../state/keep.ts";
import { type DisplayOptions, interruption, openShownRun } from "./common.ts";
import { uiOption } from "./live-page.ts";
import { ALLOW_HELP, withSecurityOptions } from "./security.ts";

interface Options extends DisplayOptions, SecurityOptions {
  qmp: QmpAddress;
  listen: Address;
  paused?: true;
  baselineSize: number;
  reconnectTimeout: number;
  allow: AllowRule[];
  stateDir?: string;
}

const HELP = `
Whoever connects from another host has to prove who it is, by TLS: with certificates (--tls-dir), or as a host that was
paired with this one (deltavee pair). --allow says who of them may hand over which VM. On loopback and unix sockets TLS
is used where it is asked for (--tls-dir or --keys-dir).

When the connection breaks, the same source may come back with another one for as long as --reconnect-timeout says.
Everybody else is refused as long as a migration is under way.

The guest starts here only after the source has given it up for good, and is left paused when it was paused
there. If the migration fails before that, QEMU here is ended: what it holds is a copy of a guest that runs on.

Exit codes: 0 arrived, 1 failed, 2 wrong usage, 130 cancelled; the message says where the VM is.

Example:
  qemu-system-x86_64 ... -incoming defer -qmp unix:/run/vm.qmp,server=on,wait=off
  deltavee receive --listen 0.0.0.0:4445 --qmp /run/vm.qmp
`;

export function receiveCommand(): Command {
  const command = new Command("receive")
    .description("take in a VM from deltavee migrate (tunnel mode)")
    .requiredOption("--listen <address>", "where the source connects to, e.g. 0.0.0.0:4445", parseAddress)
    .requiredOption("--qmp <socket>", "QMP monitor of a QEMU started with -incoming defer", parseQmpAddress)
    .option("--paused", "leave the guest paused on arrival, also when it was running at the source")
    .option(
      "--baseline-size <size>",
      "memory for pages of the source, which its --codec xbrle and zstd-dictionary need here",
      parseBytes,
      0,
    )
    .addOption(
      new Option(
        "--reconnect-timeout <duration>",
        "how long to wait for a source whose connection broke, 0s: not at all",
      )
        .argParser(parseMs)
        .default(RECONNECT_MS_DEFAULT, `${RECONNECT_MS_DEFAULT / 1000}s`),
    )
    .option("--allow <rule>", ALLOW_HELP, parseAllow, [])
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--record <file>", "write the run record of this side (NDJSON)")
    .addOption(uiOption())
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors");
  return withSecurityOptions(command).addHelpText("after", HELP).action(receive);
}

async function receive({ baselineSize, reconnectTimeout, ...options }: Options): Promise<void> {
  const { signal, release } = interruption();
  try {
    await runReception(
      {
        ...options,
        guest: qemuDestination(options.qmp),
        paused: options.paused ?? false,
        baselineBytesMax: baselineSize,
        reconnectTimeoutMs: reconnectTimeout,
        listening: (address) => sayListening(address, options),
        signal,
      },
      (first) => openShownRun(options, ...first),
    );
  } finally {
    release();
  }
}

function sayListening(address: Address, options: DisplayOptions): void {
  const text = formatAddress(address);
  if (options.json) process.stdout.write(`${JSON.stringify({ type: "listening", address: text })}\n`);
  else if (!options.quiet) process.stderr.write(`receive: waiting for a source on ${text}\n`);
}
