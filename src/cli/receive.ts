// `deltavee receive`: takes a VM in from "deltavee migrate --to deltavee://..." and hands it to a QEMU on this
// machine that was started with -incoming defer. One VM, then it ends.

import type { Socket } from "node:net";
import { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { DeltaveeError } from "../base/errors.ts";
import { version } from "../base/version.ts";
import { availableEntropyCodecs } from "../codec/entropy.ts";
import { DestinationEngine } from "../engine/destination.ts";
import { QemuIncoming } from "../hypervisor/qemu/incoming.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type Address, formatAddress, listen, parseAddress } from "../link/address.ts";
import { SocketChannel } from "../link/socket-channel.ts";
import { type DisplayOptions, onInterrupt, openShownRun, parseQmpAddress } from "./common.ts";

interface Options extends DisplayOptions {
  qmp: QmpAddress;
  listen: Address;
}

const HELP = `
The guest starts here only after the source has given it up for good, and is left paused when it was paused
there. If the migration fails before that, QEMU here is ended: what it holds is a copy of a guest that runs on.

Example:
  qemu-system-x86_64 ... -incoming defer -qmp unix:/run/vm.qmp,server=on,wait=off
  deltavee receive --listen 0.0.0.0:4445 --qmp /run/vm.qmp
`;

export function receiveCommand(): Command {
  return new Command("receive")
    .description("take in a VM from deltavee migrate (tunnel mode)")
    .requiredOption("--listen <address>", "where the source connects to, e.g. 0.0.0.0:4445", parseAddress)
    .requiredOption("--qmp <socket>", "QMP monitor of a QEMU started with -incoming defer", parseQmpAddress)
    .option("--record <file>", "write the run record of this side (NDJSON)")
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", HELP)
    .action(receive);
}

async function receive(options: Options): Promise<void> {
  const run = await openShownRun(options);
  const { record } = run;
  const notice = (message: string) => record.add({ type: "notice", message });
  let vm: QemuIncoming | undefined;
  try {
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
    const socket = await acceptSource(options.listen, notice, options);
    const engine = new DestinationEngine({
      channel: new SocketChannel(socket),
      vm,
      own: {
        deltavee: version,
        entropyCodecs: availableEntropyCodecs(),
        hypervisor: { kind: "qemu", version: vm.version },
      },
      clock: systemClock,
      record,
    });
    const release = onInterrupt(() => engine.cancel());
    const { error } = await engine.run();
    release();
    await vm.close();
    vm = undefined;
    await run.finish();
    if (error !== undefined) throw error;
  } finally {
    await vm?.close();
    await run.close();
  }
}

/** The first connection; what comes after it is refused while this one lasts, since there is one VM to give. */
async function acceptSource(
  address: Address,
  notice: (text: string) => void,
  options: Options,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const release = onInterrupt(() =>
      reject(new DeltaveeError("CANCELLED", "Cancelled before a source came")),
    );
    listen(address, {
      onConnection: (socket) => {
        release();
        resolve(socket);
        listening?.close();
      },
      onError: (error) => notice(error.message),
    }).then(
      (listener) => {
        listening = listener;
        if (!options.json && !options.quiet) {
          process.stderr.write(`receive: waiting for a source on ${formatAddress(listener.address)}\n`);
        } else if (options.json) {
          process.stdout.write(
            `${JSON.stringify({ type: "listening", address: formatAddress(listener.address) })}\n`,
          );
        }
      },
      (error: unknown) => {
        release();
        reject(error);
      },
    );
    let listening: { close(): void } | undefined;
  });
}
