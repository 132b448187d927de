// One guest at work under QEMU, moved from one QEMU to the next, again and again, in both modes by turns. `deltavee
// migrate` and `deltavee receive` run in this process, so that whatever one of them leaves behind adds up here.

import { join } from "node:path";
import { migrateCommand } from "../../src/cli/migrate.ts";
import { receiveCommand } from "../../src/cli/receive.ts";
import { freePort } from "../support/processes.ts";
import type { QemuBinary } from "../support/qemu-binaries.ts";
import { type QemuOptions, type QemuVm, startQemu } from "../support/qemu-vm.ts";
import { heartbeatGap } from "../support/serial.ts";
import { type Measure, measureSelf } from "./measure.ts";

const LOAD = "ws=8192 rate=500 pattern=sparse fill=random";
const MEMORY_MIB = 64;
const HEARTBEATS = 10;
/** A `receive` that listens takes a moment to. */
const LISTENING_MS_MAX = 60_000;

/** `stillTime`: whether there is time for another move. @throws Error for a guest that is not whole */
export async function moveQemu(
  binary: QemuBinary,
  moves: number,
  folder: string,
  moved: (moves: number) => void,
  stillTime: () => boolean = () => true,
): Promise<Measure[]> {
  const measures: Measure[] = [];
  const options: QemuOptions = { binary, memoryMiB: MEMORY_MIB, append: LOAD };
  let source = await startQemu(options);
  try {
    await source.waitForReady();
    for (let move = 1; move <= moves && stillTime(); move++) {
      await source.waitForHeartbeats(HEARTBEATS);
      const destination = await startQemu({ ...options, incoming: "defer" });
      try {
        await (move % 2 === 0 ? moveDirect : moveThroughTunnel)(source, destination, join(folder, "state"));
        await destination.waitForHeartbeats(HEARTBEATS);
        const { missing, repeated } = heartbeatGap(source.serial, destination.serial);
        if (missing.length + repeated.length > 0)
          throw new Error(`Move ${move}: heartbeats are missing, or twice`);
        const { ok } = await destination.verify();
        if (!ok) throw new Error(`Move ${move}: the guest finds its memory damaged`);
      } catch (thrown) {
        await destination.stop();
        throw thrown;
      }
      await source.stop();
      source = destination;
      measures.push(await measureSelf(folder, measures[0]));
      moved(move);
    }
  } finally {
    await source.stop();
  }
  return measures;
}

async function moveDirect(source: QemuVm, destination: QemuVm, states: string): Promise<void> {
  const to = `tcp:127.0.0.1:${await freePort()}`;
  await destination.qmp.execute("migrate-incoming", { uri: to });
  await migrate(source, to, states);
}

async function moveThroughTunnel(source: QemuVm, destination: QemuVm, states: string): Promise<void> {
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const received = receiveCommand().parseAsync(
    ["--listen", address, "--qmp", destination.toolQmp.path, "--state-dir", states, "--quiet"],
    { from: "user" },
  );
  // Whichever fails says why.
  const early = received.then(() => {});
  early.catch(() => {});
  await Promise.race([early, listens(port)]);
  await Promise.all([received, migrate(source, `deltavee://${address}`, states)]);
}

function migrate(source: QemuVm, to: string, states: string): Promise<unknown> {
  const commandArguments = ["--qmp", source.toolQmp.path, "--to", to, "--state-dir", states, "--quiet"];
  return migrateCommand().parseAsync(commandArguments, { from: "user" });
}

/** Without connecting, which would be a stranger's connection. */
async function listens(port: number): Promise<void> {
  const { readFileSync } = await import("node:fs");
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const isListening = new RegExp(`^\\s*\\d+: 0100007F:${hex} 00000000:0000 0A `, "m");
  const endMs = performance.now() + LISTENING_MS_MAX;
  while (!isListening.test(readFileSync("/proc/net/tcp", "latin1"))) {
    if (performance.now() > endMs) throw new Error(`Nobody listens on port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
