// A VM of the demo under the embedded hypervisor. Its pre-copy loop is ours, so "standard" is that loop without
// page cache and compression, under limits that make it give up converging.

import { systemClock } from "../../base/clock.ts";
import { PRECOPY_LIMITS, PrecopyVm } from "../../engine/precopy/precopy.ts";
import { V86Incoming } from "../../hypervisor/v86/incoming.ts";
import { V86Guest } from "../../hypervisor/v86/outgoing.ts";
import { v86Version } from "../../hypervisor/v86/version.ts";
import { VmHost } from "../../hypervisor/v86/vm-host.ts";
import type { DemoVm, VmContext } from "./demo-vm.ts";
import { readGuestKernel, STANDARD_ITERATIONS_MAX } from "./guest.ts";
import type { VmSpec } from "./messages.ts";
import { receiveThroughTunnel, sendThroughTunnel } from "./tunnel.ts";

export async function openV86Vm(spec: VmSpec, context: VmContext): Promise<DemoVm> {
  const { side, memoryBytes, guestOptions } = spec;
  const { record } = context;
  const host = await VmHost.open({
    memoryBytes,
    ...(side === "source" ? { kernel: { elf: readGuestKernel(), commandLine: guestOptions } } : {}),
    onSerialLine: (line, hostMs) => context.onSerial(`${line}\n`, hostMs),
    onFailure: context.onFailure,
  });
  const version = v86Version();
  const identity = { kind: "v86" as const, version, compatibility: host.compatibility };
  return {
    hypervisor: `v86 ${version}`,
    run: () => host.run(),
    type: (text) => host.sendSerial(text),
    migrate(order) {
      const limits =
        order.method === "standard"
          ? { ...PRECOPY_LIMITS, iterationsMax: STANDARD_ITERATIONS_MAX }
          : undefined;
      const vm = new PrecopyVm({
        guest: new V86Guest(host, { isRunning: true, version }),
        clock: systemClock,
        limits,
        decision: (choice, reason) => record.add({ type: "decision", subject: "switchover", choice, reason }),
      });
      return sendThroughTunnel({ vm, identity, record }, order, memoryBytes);
    },
    receive: () => receiveThroughTunnel({ vm: new V86Incoming(host, { version }), identity, record }),
    close: () => host.dispose(),
  };
}
