// Moves a VM of a QEMU on this host: node examples/move.mjs /run/vm.qmp deltavee://host2:4445

import { DeltaveeError, migrate } from "deltavee";

const [qmp, to] = process.argv.slice(2);
const giveUp = new AbortController();
process.once("SIGINT", () => giveUp.abort());

try {
  const { vm, summary } = await migrate({
    qmp,
    to,
    maxDowntimeMs: 100,
    maxTimeMs: 10 * 60_000,
    signal: giveUp.signal,
    onEvent(event) {
      if (event.type === "sample" && event.remainingBytes !== undefined) {
        const left = (event.remainingBytes / 1e6).toFixed(0);
        console.log(`${left} MB left, ${(event.linkBytesPerSecond / 1e6).toFixed(1)} MB/s`);
      }
      if (event.type === "notice" || event.type === "decision") console.log(event);
    },
  });
  console.log(`The guest is ${vm}; it stood still for ${summary?.downtimeMs} ms`);
} catch (error) {
  if (!(error instanceof DeltaveeError)) throw error;
  // What went wrong, and where the guest is.
  console.error(`${error.code}: ${error.message} (the guest is ${error.vm ?? "where it was"})`);
  process.exitCode = 1;
}
