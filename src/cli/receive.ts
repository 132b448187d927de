// `deltavee receive`: takes a VM in from "deltavee migrate --to deltavee://..." and hands it to a QEMU on this
// machine that was started with -incoming defer. One VM, then it ends.

import type { Socket } from "node:net";
import { Command } from "commander";
import { CancelledError, type VmWhere } from "../base/errors.ts";
import { parseBytes } from "../base/units.ts";
import { version } from "../base/version.ts";
import { ENTROPY_CODEC_IDS } from "../codec/entropy/entropy-coder.ts";
import { DestinationEngine, type DestinationOutcome } from "../engine/destination.ts";
import { QemuIncoming } from "../hypervisor/qemu/incoming.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { type Address, formatAddress, type Listener, listen, parseAddress } from "../link/address.ts";
import { SocketChannel } from "../link/socket-channel.ts";
import type { Welcome } from "../wire/bodies.ts";
import { encodeFrame } from "../wire/frame.ts";
import { refuseFrame } from "../wire/handshake.ts";
import { type DisplayOptions, onInterrupt, openShownRun, parseQmpAddress } from "./common.ts";
import { makeBatchCoder, makeHome } from "./engine-parts.ts";
import { type KeptJournal, keepJournal, openStateFolder, STATE_DIR_HELP } from "./state/keep.ts";

interface Options extends DisplayOptions {
  qmp: QmpAddress;
  listen: Address;
  paused?: true;
  baselineSize: number;
  stateDir?: string;
}

/** After a failure: a person has to look at the other side before anything is done here. */
const UNDECIDED: ReadonlySet<VmWhere> = new Set(["paused on destination", "unknown"]);

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
    .option("--paused", "leave the guest paused on arrival, also when it was running at the source")
    .option(
      "--baseline-size <size>",
      "memory for pages of the source, which its --codec xbrle and zstd-dictionary need here",
      parseBytes,
      0,
    )
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--record <file>", "write the run record of this side (NDJSON)")
    .option("--json", "print the events of the run as JSON, one a line")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", HELP)
    .action(receive);
}

async function receive(options: Options): Promise<void> {
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
    const sources = await Sources.listen(options.listen, notice);
    sayListening(sources.address, options);
    const own: Welcome = {
      deltavee: version,
      entropyCodecs: [...ENTROPY_CODEC_IDS],
      hypervisor: { kind: "qemu", version: vm.version },
    };
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
          // Threads are for a source that was welcomed, not for whoever connects.
          welcomed: ({ session }) => {
            void coder.start();
            const subject = { session, side: "destination", mode: "tunnel", peer: from } as const;
            journal = keepJournal(states, { subject, qmp: options.qmp, notice });
          },
        });
        const release = onInterrupt(() => engine.cancel());
        outcome = await engine.run();
        release();
        await coder.close();
        if (!outcome.welcomed) notice(`${from} was no source for this VM: ${outcome.error?.message}`);
      } while (!outcome.welcomed && outcome.error?.code !== "CANCELLED");
    } finally {
      sources.close();
    }
    await vm.close();
    vm = undefined;
    if (outcome.error !== undefined && UNDECIDED.has(outcome.vm)) journal?.leave(outcome.error.message);
    else journal?.remove();
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

/** Connections of would-be sources, one at a time: there is one VM to take in. */
class Sources {
  readonly #notice: (text: string) => void;
  readonly #listener: Listener;
  #waiting: ((socket: Socket) => void) | undefined;

  static async listen(address: Address, notice: (text: string) => void): Promise<Sources> {
    let sources: Sources | undefined;
    const listener = await listen(
      address,
      {
        onConnection: (socket) => sources?.connected(socket),
        onError: (error) => notice(error.message),
      },
      { pauseOnConnect: true },
    );
    sources = new Sources(listener, notice);
    return sources;
  }

  private constructor(listener: Listener, notice: (text: string) => void) {
    this.#listener = listener;
    this.#notice = notice;
  }

  get address(): Address {
    return this.#listener.address;
  }

  /** @throws CancelledError when the operator gives up waiting */
  async next(): Promise<{ channel: SocketChannel; from: string }> {
    return new Promise((resolve, reject) => {
      const release = onInterrupt(() => {
        this.#waiting = undefined;
        reject(new CancelledError("Cancelled before a source came"));
      });
      this.#waiting = (socket) => {
        this.#waiting = undefined;
        release();
        resolve({ channel: new SocketChannel(socket), from: socket.remoteAddress ?? "A local process" });
      };
    });
  }

  connected(socket: Socket): void {
    if (this.#waiting !== undefined) {
      this.#waiting(socket);
      return;
    }
    this.#notice(`Refused ${socket.remoteAddress ?? "a local process"}: a migration is under way`);
    socket.on("error", (error) => this.#notice(`It went away before it could be told: ${error.message}`));
    socket.resume();
    socket.end(encodeFrame(refuseFrame("BUSY", "another migration is under way")));
  }

  close(): void {
    this.#listener.close();
  }
}
