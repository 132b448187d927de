// The least that a tool at both ends costs, as a method beside the others: QEMU's own stream goes through two processes
// of Node that do nothing but carry it, at the places at which Deltavee's two engines are, over the same kinds of
// sockets. QEMU takes its migration for completed when the first of them has all of it.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { MigrationStatus } from "../src/hypervisor/qemu/qmp-types.ts";
import { LineLog } from "../src/lab/line-log.ts";
import type { Method } from "../src/lab/method/method.ts";
import type { Address } from "../src/link/address.ts";
import { type CliRun, startProcess, tempFolder } from "../test/support/processes.ts";

const UNLIMITED_BYTES_PER_SECOND = 10e9;
const LISTENING_TIMEOUT_MS = 30_000;
const ENDS: ReadonlySet<MigrationStatus> = new Set(["completed", "failed", "cancelled"]);

export const CARRIED: Method = {
  name: "carried",
  title: "QEMU's stream, carried by Node",
  mode: "stock",
  sends: "standard",
  prepare: async ({ source, destination, link, downtimeMsMax, started }) => {
    const folder = tempFolder();
    const [sourcePath, destinationPath] = [join(folder.path, "source"), join(folder.path, "destination")];
    const wire: Address = { kind: "tcp", host: link.destinationAddress, port: link.destinationPort };
    await source.qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "events", state: true }],
    });
    await source.qmp.execute("migrate-set-parameters", {
      "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
      "downtime-limit": downtimeMsMax,
    });
    await destination.qmp.execute("migrate-incoming", { uri: `unix:${destinationPath}` });
    started("destination", await startCarrier(wire, { kind: "unix", path: destinationPath }));
    return async () => {
      try {
        started("source", await startCarrier({ kind: "unix", path: sourcePath }, wire));
        const ended = new Promise<MigrationStatus>((resolve) => {
          const release = source.qmp.on("MIGRATION", ({ data: { status } }) => {
            if (!ENDS.has(status)) return;
            release();
            resolve(status);
          });
        });
        await source.qmp.execute("migrate", { uri: `unix:${sourcePath}` });
        return { arrived: (await ended) === "completed" };
      } finally {
        folder.remove();
      }
    };
  },
};

/** Resolves when it listens. */
async function startCarrier(from: Address, to: Address): Promise<CliRun> {
  const program = fileURLToPath(new URL("./carry-process.js", import.meta.url));
  const [stdout, stderr] = [new LineLog(), new LineLog()];
  const carrier = await startProcess(process.execPath, [program, JSON.stringify({ from, to })], {
    onStdout: (chunk) => stdout.push(chunk),
    onStderr: (chunk) => stderr.push(chunk),
  });
  void carrier.exited.then(() => stdout.end(new Error(`A carrier ended: ${carrier.stderrTail()}`)));
  await stdout.waitFor(({ text }) => text === "listening", "that it listens", {
    timeoutMs: LISTENING_TIMEOUT_MS,
  });
  return { ...carrier, stdout, stderr };
}
