// A process that hosts one VM of the demo and the engine that moves it: carries out the requests of messages.ts.
// Started by host.ts, ended by its channel's closing, so that it cannot outlive the demo, however that ends.

import { assert } from "../../base/assert.ts";
import { systemClock } from "../../base/clock.ts";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { RunRecord } from "../../record/writer.ts";
import type { DemoVm, VmContext } from "./demo-vm.ts";
import { hostNowMs, type PlainError, type Report, type Request, type VmSpec } from "./messages.ts";
import { openQemuVm } from "./qemu-vm.ts";
import { openV86Vm } from "./v86-vm.ts";

const context: VmContext = {
  record: new RunRecord({
    clock: systemClock,
    listeners: [(event) => report({ type: "event", event, hostMs: hostNowMs() })],
  }),
  onSerial: (text, hostMs) => report({ type: "serial", text, hostMs }),
  onFailure: fail,
};
let opened: DemoVm | undefined;

function report(message: Report): void {
  // The channel may have closed a moment ago: then there is nobody left to tell.
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

function plain(thrown: unknown): PlainError {
  const error = toError(thrown);
  const because = error.cause === undefined ? "" : ` (${toError(error.cause).message})`;
  return {
    code: error instanceof DeltaveeError ? error.code : "INTERNAL",
    message: `${error.message}${because}`,
  };
}

function fail(thrown: unknown): void {
  report({ type: "failed", error: plain(thrown) });
}

function openVm(vm: VmSpec): Promise<DemoVm> {
  const { hypervisor } = vm;
  return hypervisor.kind === "v86" ? openV86Vm(vm, context) : openQemuVm(vm, hypervisor, context);
}

async function carryOut(request: Request): Promise<void> {
  switch (request.type) {
    case "open":
      opened = await openVm(request.vm);
      report({ type: "opened", hypervisor: opened.hypervisor });
      return;
    case "run":
      return vm().run();
    case "type":
      return vm().type(request.text);
    case "migrate":
      return ended(await vm().migrate(request.order));
    case "receive": {
      const receiving = await vm().receive(request.method);
      report({ type: "listening", address: receiving.address });
      return ended(await receiving.ended);
    }
  }
}

function vm(): DemoVm {
  assert(opened !== undefined, "the VM has been opened");
  return opened;
}

function ended(error: Error | undefined): void {
  report({ type: "ended", ...(error === undefined ? {} : { error: plain(error) }) });
}

// One after another, whatever each of them takes: a VM is opened before it is asked for anything.
let last: Promise<void> = Promise.resolve();
process.on("message", (request: Request) => {
  last = last.then(() => carryOut(request)).catch(fail);
});
// Ctrl-C reaches every process of a terminal; it is the demo that decides, and closes the channel.
process.on("SIGINT", () => {});
process.on("disconnect", () => {
  const end = (): never => process.exit();
  if (opened === undefined) end();
  else opened.close().then(end, end);
});
