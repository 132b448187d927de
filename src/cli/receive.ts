// `deltavee receive`: takes a VM in from "deltavee migrate --to deltavee://..." and hands it to a QEMU on this
// machine that was started with -incoming defer. One VM, then it ends.

import { randomBytes } from "node:crypto";
import { Command, Option } from "commander";
import { parseBytes, parseMs } from "../base/units.ts";
import { version } from "../base/version.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import { DestinationEngine, type DestinationOutcome } from "../engine/destination.ts";
import { QemuIncoming } from "../hypervisor/qemu/incoming.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type Address, formatAddress, parseAddress } from "../link/address.ts";
import type { Welcome } from "../wire/bodies.ts";
import { ALLOW_HELP, type AllowRule, checkRules, parseAllow } from "./admission.ts";
import {
  type DisplayOptions,
  onInterrupt,
  openShownRun,
  PLAINTEXT_NOTICE,
  parseQmpAddress,
  RECONNECT_MS_DEFAULT,
} from "./common.ts";
import { makeBatchCoder, makeHome } from "./engine-parts.ts";
import { chooseIdentity, isLoopback, type SecurityOptions, withSecurityOptions } from "./security.ts";
import { Sources } from "./sources.ts";
import { type KeptJournal, keepJournal, openStateFolder, STATE_DIR_HELP } from "./state/keep.ts";

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
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors");
  return withSecurityOptions(command).addHelpText("after", HELP).action(receive);
}

async function receive(options: Options): Promise<void> {
  const identity = await chooseIdentity(options.listen, "server", options);
  checkRules(options.allow, identity !== undefined);
  let journal: KeptJournal | undefined;
  const run = await openShownRun(options, (event) => journal?.listener(event));
  const { record } = run;
  const notice = (message: string) => record.add({ type: "notice", message });
  let vm: QemuIncoming | undefined;
  try {
    const states = openStateFolder(options.stateDir, notice);
    vm = await QemuIncoming.open(options.qmp, notice);
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
    if (identity === undefined && !isLoopback(options.listen)) notice(PLAINTEXT_NOTICE);
    const sources = await Sources.listen(options.listen, { identity, rules: options.allow, notice });
    sayListening(sources.address, options);
    const own: Welcome = {
      deltavee: version,
      entropyCodecs: [...ENTROPY_CODEC_IDS],
      hypervisor: { kind: "qemu", version: vm.version },
    };
    if (options.reconnectTimeout >= 1) {
      const timeoutMs = Math.round(options.reconnectTimeout);
      own.resumption = { token: randomBytes(16).toString("hex"), timeoutMs };
    }
    let outcome: DestinationOutcome;
    try {
      do {
        const { channel, from } = await sources.next();
        const paused = options.paused ?? false;
        const baselineBytesMax = options.baselineSize;
        const home = makeHome();
        const coder = makeBatchCoder(home);
        const engine = new DestinationEngine({
          ...home,
          coder,
          channel,
          vm,
          own,
          paused,
          record,
          baselineBytesMax,
          welcomed: ({ session }) => {
            const subject = { session, side: "destination", mode: "tunnel", peer: from } as const;
            journal = keepJournal(states, { subject, qmp: options.qmp, notice });
          },
        });
        sources.giveOthersTo((other, of) => engine.offer(other, of));
        const release = onInterrupt(() => engine.cancel());
        outcome = await engine.run();
        sources.keepOthers();
        release();
        await coder.close();
        if (!outcome.welcomed) notice(`${from} was no source for this VM: ${outcome.error?.message}`);
      } while (!outcome.welcomed && outcome.error?.code !== "CANCELLED");
    } finally {
      sources.close();
    }
    await vm.close();
    vm = undefined;
    journal?.end(outcome.vm, outcome.error);
    await run.finish();
    if (outcome.error !== undefined) throw outcome.error;
  } finally {
    await vm?.close();
    journal?.remove();
    await run.close();
  }
}

function sayListening(address: Address, options: Options): void {
  const text = formatAddress(address);
  if (options.json) process.stdout.write(`${JSON.stringify({ type: "listening", address: text })}\n`);
  else if (!options.quiet) process.stderr.write(`receive: waiting for a source on ${text}\n`);
}
