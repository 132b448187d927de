// A guest under a QEMU on this host, known by its monitor, that is to be given away.

import { processListeningOn } from "../hypervisor/qemu/guest-memory.ts";
import { QemuOutgoing } from "../hypervisor/qemu/outgoing.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { keepJournal, leftByTheDead, openStateFolder } from "../state/keep.ts";
import { sampleInWorker } from "./forecast/live-forecast.ts";
import type { SourceGuest } from "./guest.ts";

export function qemuSource(qmp: QmpAddress): SourceGuest {
  return {
    async open({ mode, onStall, stateDir, notice }) {
      const states = openStateFolder(stateDir, notice);
      const left = leftByTheDead(states, qmp);
      const vm = await QemuOutgoing.open(qmp, {
        notice,
        mayThrottle: onStall === "throttle",
        mayPostcopy: onStall === "postcopy",
        guarded: mode === "direct",
        left: left.settings,
      });
      const weakness = await weaknessOf(vm);
      if (weakness !== undefined) notice(weakness);
      return {
        vm,
        identity: { kind: "qemu", version: vm.version },
        guestRamBytes: vm.guestRamBytes,
        names: () => vm.names(),
        keepJournal(named) {
          const subject = { ...named, side: "source", settings: vm.settings } as const;
          const journal = keepJournal(states, { subject, qmp, notice, guestRuns: () => vm.wasRunning });
          left.forget();
          return journal;
        },
        sampler: async () => sampleInWorker(await vm.locateMemory(processListeningOn(qmp))),
        close: () => vm.close(),
      };
    },
  };
}

async function weaknessOf(vm: QemuOutgoing): Promise<string | undefined> {
  try {
    return await vm.weakness();
  } catch (thrown) {
    await vm.close();
    throw thrown;
  }
}
