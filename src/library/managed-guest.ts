// A guest under a QEMU that somebody else manages, e.g. libvirt: nothing but its stream is known, neither its size nor
// its name, and nothing is kept of its migration, since what becomes of it is for others to put right.

import { systemClock } from "../base/clock.ts";
import type { Channel } from "../engine/ports.ts";
import { MANAGED_QEMU } from "../hypervisor/stream/identity.ts";
import { StreamIncoming } from "../hypervisor/stream/incoming.ts";
import { StreamOutgoing } from "../hypervisor/stream/outgoing.ts";
import { type Address, connect } from "../link/address.ts";
import { SocketChannel } from "../link/socket-channel.ts";
import type { DestinationGuest, SourceGuest } from "./guest.ts";

const CONNECT_TIMEOUT_MS = 5000;

/** `channel`: what its QEMU sends, from the first byte on. Closed when the migration is over. */
export function managedSource(channel: Channel): SourceGuest {
  return {
    async open() {
      const vm = new StreamOutgoing(channel, systemClock);
      return {
        vm,
        identity: MANAGED_QEMU,
        guestRamBytes: undefined,
        observer: vm.pages,
        names: async () => ({}),
        close: () => vm.cancel(),
      };
    },
  };
}

/** `address`: where its QEMU waits. It is connected to when a source has come. */
export function managedDestination(address: Address): DestinationGuest {
  return {
    async open() {
      const vm = new StreamIncoming(
        async () => new SocketChannel(await connect(address, CONNECT_TIMEOUT_MS)),
      );
      return { vm, identity: MANAGED_QEMU, close: async () => {} };
    },
  };
}
