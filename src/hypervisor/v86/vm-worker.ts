// The thread that the VM runs in: carries out the calls of protocol.ts on one Machine and its dirty scan. Only
// between two calls does v86 give the guest its slices, so a page is never read half written.

import { parentPort } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { DirtyScan, PAGE_BYTES } from "./dirty-scan.ts";
import { Machine } from "./machine.ts";
import type { Call, Message, Operation, Operations, PlainError } from "./protocol.ts";
import { StreamLoader } from "./stream-loader.ts";

interface Vm {
  machine: Machine;
  scan: DirtyScan;
  /** Shared with the client: see protocol.ts. */
  exchange: Uint8Array;
  loader: StreamLoader;
}

type Handler<Name extends Operation> = (
  request: Operations[Name]["request"],
) => Operations[Name]["reply"] | Promise<Operations[Name]["reply"]>;

assert(parentPort !== null, "vm-worker runs as a worker thread");
const port = parentPort;
let opened: Vm | undefined;

function vm(): Vm {
  assert(opened !== undefined, "the VM has not been opened");
  return opened;
}

const handlers: { [Name in Operation]: Handler<Name> } = {
  async open({ memoryBytes, kernel, exchange }) {
    assert(opened === undefined, "the VM has been opened before");
    // The shadow before the machine: it must not take the guest's time later.
    const scan = new DirtyScan(memoryBytes);
    const machine = await Machine.create({
      memoryBytes,
      ...(kernel === undefined ? {} : { kernel }),
      onSerialLine: (line) => send({ type: "serial", line, hostMs: Number(process.hrtime.bigint()) / 1e6 }),
    });
    opened = {
      machine,
      scan,
      exchange: new Uint8Array(exchange),
      loader: new StreamLoader(() => machine.memory()),
    };
    return machine.compatibility;
  },
  async run() {
    await vm().machine.run();
    return null;
  },
  async stop() {
    await vm().machine.stop();
    return null;
  },
  resetScan() {
    vm().scan.reset();
    return null;
  },
  scan() {
    const { machine, scan } = vm();
    return scan.scan(machine.memory()).slice();
  },
  takePages(pageIndices) {
    const { machine, scan, exchange } = vm();
    const memory = machine.memory();
    for (let i = 0; i < pageIndices.length; i++) scan.take(memory, pageIndices[i]!, exchange, i * PAGE_BYTES);
    return null;
  },
  readPages(pageIndices) {
    const { machine, exchange } = vm();
    const memory = machine.memory();
    for (let i = 0; i < pageIndices.length; i++) {
      const start = pageStart(pageIndices[i]!);
      memory.copy(exchange, i * PAGE_BYTES, start, start + PAGE_BYTES);
    }
    return null;
  },
  writePages(pageIndices) {
    const { machine, exchange } = vm();
    // Never under a guest that could run: its compiled code would not notice, and RAM would no longer be its own.
    assert(machine.state === "incoming", `the RAM of a machine that is ${machine.state} is its guest's`);
    const memory = machine.memory();
    for (let i = 0; i < pageIndices.length; i++) {
      memory.set(exchange.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), pageStart(pageIndices[i]!));
    }
    return null;
  },
  async loadStream(bytes) {
    const { machine, loader, exchange } = vm();
    assert(machine.state === "incoming", `a machine that is ${machine.state} takes no migration`);
    loader.push(exchange.subarray(0, bytes));
    const state = loader.loadedState;
    if (state === undefined) return false;
    await machine.restoreDeviceState(state);
    return true;
  },
  saveDeviceState: () => vm().machine.saveDeviceState(),
  async restoreDeviceState(bytes) {
    await vm().machine.restoreDeviceState(bytes);
    return null;
  },
  sendSerial(text) {
    vm().machine.sendSerial(text);
    return null;
  },
};

function pageStart(pageIndex: number): number {
  assert(pageIndex < vm().scan.pageCount, `no page ${pageIndex} among ${vm().scan.pageCount}`);
  return pageIndex * PAGE_BYTES;
}

async function carryOut(call: Call): Promise<void> {
  try {
    const handler = handlers[call.operation] as Handler<Operation>;
    const reply = await handler(call.request);
    send({ type: "reply", id: call.id, reply }, ArrayBuffer.isView(reply) ? [reply.buffer] : []);
  } catch (thrown) {
    send({ type: "error", id: call.id, error: toPlain(thrown) });
  }
}

function send(message: Message, moved: ArrayBuffer[] = []): void {
  port.postMessage(message, moved);
}

/** What is not typed is a failed assertion or the like: a bug. */
function toPlain(thrown: unknown): PlainError {
  const { message, cause } = toError(thrown);
  return {
    code: thrown instanceof DeltaveeError ? thrown.code : "INTERNAL",
    message,
    ...(cause === undefined ? {} : { cause: toError(cause).message }),
  };
}

port.on("message", (call: Call) => void carryOut(call));
