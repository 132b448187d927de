// A QEMU on this host, known by its monitor, that waits for a guest to be taken in.

import { QemuIncoming } from "../hypervisor/qemu/incoming.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import { keepJournal, openStateFolder } from "../state/keep.ts";
import type { DestinationGuest } from "./guest.ts";

export function qemuDestination(qmp: QmpAddress): DestinationGuest {
  return {
    async open({ stateDir, notice }) {
      const states = openStateFolder(stateDir, notice);
      const vm = await QemuIncoming.open(qmp, notice);
      return {
        vm,
        identity: { kind: "qemu", version: vm.version },
        keepJournal: (named) =>
          keepJournal(states, { subject: { ...named, side: "destination", mode: "tunnel" }, qmp, notice }),
        close: () => vm.close(),
      };
    },
  };
}
