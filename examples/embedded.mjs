// A VM that runs moves from one embedded hypervisor to another, over a connection on loopback that is made slow, and its
// memory is verified on arrival by the guest itself. Needs no QEMU: node examples/embedded.mjs

import { EmbeddedVm, migrate, receive } from "deltavee";

const memoryBytes = 16 * 1024 * 1024;

// The test guest says READY once it writes to its memory, and answers "v" with what it finds there.
let said = () => {};
const lines = [];
const onSerialLine = (line) => {
  lines.push(line);
  said();
};
const hears = (beginning) =>
  new Promise((resolve) => {
    said = () => {
      const line = lines.find((each) => each.startsWith(beginning));
      if (line !== undefined) resolve(line);
    };
    said();
  });

const here = await EmbeddedVm.boot({ memoryBytes, onSerialLine });
const there = await EmbeddedVm.empty({ memoryBytes, onSerialLine });
try {
  await hears("READY");

  // `receive` ends when the guest is there; where it listens it says before.
  let arrived;
  const to = await new Promise((resolve, reject) => {
    arrived = receive({ vm: there, listen: "127.0.0.1:0", onListening: resolve });
    arrived.catch(reject);
  });

  const { summary } = await migrate({
    vm: here,
    to,
    maxDowntimeMs: 200,
    maxBytesPerSecond: 1_000_000,
    onStall: "switchover",
    onEvent(event) {
      if (event.type === "phase") console.log(`${Math.round(event.atMs)} ms: ${event.phase}`);
    },
  });
  console.log(`the guest is ${(await arrived).vm}`);
  if (summary !== undefined)
    console.log(`${summary.wireBytes} bytes, stood still for ${summary.downtimeMs} ms`);

  await there.type("v");
  const verdict = await hears("VERIFY");
  console.log(verdict);
  if (!verdict.startsWith("VERIFY ok")) process.exitCode = 1;
} finally {
  await Promise.all([here.close(), there.close()]);
}
