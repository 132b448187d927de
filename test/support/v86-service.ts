// Embedded VMs as a service moves them (src/service): given away by their name, taken in by their name. What the program
// does with QEMU's monitors is done here with VMs of this process.

import { systemClock } from "../../src/base/clock.ts";
import type { Channel } from "../../src/engine/ports.ts";
import { PrecopyVm } from "../../src/engine/precopy/precopy.ts";
import { V86Incoming } from "../../src/hypervisor/v86/incoming.ts";
import { V86Guest } from "../../src/hypervisor/v86/outgoing.ts";
import { v86Version } from "../../src/hypervisor/v86/version.ts";
import type { DestinationGuest, SourceGuest } from "../../src/library/guest.ts";
import { runMigration } from "../../src/library/migration.ts";
import { takeIn } from "../../src/library/reception.ts";
import { type Address, formatAddress } from "../../src/link/address.ts";
import { HISTORY } from "../../src/memory/policy/history.ts";
import type { RecordListener } from "../../src/record/writer.ts";
import type { WaitingVm } from "../../src/service/incoming.ts";
import type { OutgoingOrder } from "../../src/service/outgoing.ts";
import type { Runs } from "../../src/service/runs.ts";
import type { V86Vm } from "./v86-vm.ts";

export interface V86OrderOptions {
  readonly to: Address;
  readonly runs: Runs;
  readonly weight?: number;
  /** What each connection goes through. */
  readonly shared?: (channel: Channel) => Channel;
  readonly downtimeMsMax?: number;
  readonly listener?: RecordListener;
}

export function v86Order(name: string, vm: V86Vm, options: V86OrderOptions): OutgoingOrder {
  const { to, runs, weight = 1, shared, downtimeMsMax = 500, listener: other = () => {} } = options;
  return {
    vm: name,
    key: name,
    peer: formatAddress(to),
    weight,
    move: ({ id, signal, listener }) =>
      runMigration(
        {
          guest: sourceGuest(name, vm),
          to,
          shared,
          downtimeMsMax,
          // A machine that is busy with other things may not let it converge.
          onStall: "switchover",
          cachePolicy: HISTORY,
          cacheBytesMax: 64 * 1024 * 1024,
          hasForecast: false,
          signal,
        },
        runs.opener({ id, vm: name }, listener, other),
      ),
  };
}

export function v86Waiting(name: string, vm: V86Vm, runs: Runs): WaitingVm {
  return {
    key: name,
    names: { name },
    takeIn: (sources, { id, signal, listener }) =>
      takeIn(
        {
          guest: destinationGuest(vm),
          paused: false,
          baselineBytesMax: 0,
          reconnectTimeoutMs: 60_000,
          signal,
        },
        async () => sources,
        runs.opener({ id, vm: name }, listener),
      ),
  };
}

function identityOf(vm: V86Vm) {
  return { kind: "v86" as const, version: v86Version(), compatibility: vm.host.compatibility };
}

function sourceGuest(name: string, vm: V86Vm): SourceGuest {
  return {
    open: async ({ record }) => ({
      vm: new PrecopyVm({
        guest: new V86Guest(vm.host, { isRunning: true, version: v86Version() }),
        clock: systemClock,
        limits: undefined,
        decision: (choice, reason) => record.add({ type: "decision", subject: "switchover", choice, reason }),
      }),
      identity: identityOf(vm),
      guestRamBytes: vm.host.memoryBytes,
      names: async () => ({ name }),
      close: async () => {},
    }),
  };
}

function destinationGuest(vm: V86Vm): DestinationGuest {
  return {
    open: async () => ({
      vm: new V86Incoming(vm.host, { version: v86Version() }),
      identity: identityOf(vm),
      close: async () => {},
    }),
  };
}
