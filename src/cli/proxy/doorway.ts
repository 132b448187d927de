// Where QEMU's stream comes in at the source: libvirt connects here and gives the connection to its QEMU. Each
// connection is asked by its first bytes what it is, before anything is begun for it. One migration at a time. To a port
// of this host any of its users can connect: only those who may are heard. A socket file is for its owner by itself.

import type { Socket } from "node:net";
import { systemClock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { RareNotices } from "../../base/rare-notices.ts";
import type { Channel } from "../../engine/ports.ts";
import { OPENING_BYTES, openingOf } from "../../hypervisor/stream/opening.ts";
import { type Address, formatAddress, type Listener, listen } from "../../link/address.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { watchSocketFile } from "../../link/socket-file.ts";
import { peerUid } from "../../link/socket-owner.ts";
import { WaitingChannel } from "../../link/waiting-channel.ts";

/** Connections whose first bytes have not come. */
const CONNECTIONS_MAX = 64;
/** libvirt connects, and QEMU begins at once. */
const OPENING_MS_MAX = 30_000;

/** What has become of a migration that was let in. */
export interface Carried {
  /** It cannot be carried on: it fails, and the guest goes on at the source. */
  refuse(why: DeltaveeError): void;
  /** Never rejects. */
  readonly over: Promise<void>;
}

export interface DoorwayOptions {
  /** Users of this host (their ids) who are heard at a TCP port; undefined: all of them. */
  allowedUids?: readonly number[] | undefined;
  /** A migration has come; `channel` gives all of its stream. */
  begin: (channel: Channel) => Carried;
  notice: (text: string) => void;
  /** Something that was to be carried is not, and has failed by that. */
  refused: (error: DeltaveeError) => void;
  /** What is bound at our path is not our socket any more. Called once. */
  bypassed: (error: DeltaveeError) => void;
}

export class Doorway {
  readonly #options: DoorwayOptions;
  /** Of connections: whoever reaches the port can cause them. */
  readonly #notices: RareNotices;
  #listener!: Listener;
  #endWatch: () => void = () => {};
  #current: Carried | undefined;

  /** @throws LinkError LINK_FAILED */
  static async open(address: Address, options: DoorwayOptions): Promise<Doorway> {
    const doorway = new Doorway(options);
    const handlers = {
      onConnection: (socket: Socket) => doorway.#connected(socket),
      onError: (error: Error) => doorway.#notices.say(error.message),
    };
    // What is paused is read straight into the engine's memory.
    const listening = { pauseOnConnect: true, connectionsMax: CONNECTIONS_MAX };
    doorway.#listener = await listen(address, handlers, listening);
    if (address.kind === "unix") {
      doorway.#endWatch = watchSocketFile(address.path, (how) => {
        const text =
          `The socket at ${formatAddress(address)} was ${how}: whoever connects there goes past Deltavee. On one host ` +
          "a destination QEMU that is to listen at the same path does this: give it another one (docs/libvirt.md)";
        options.bypassed(new DeltaveeError("SOCKET_REPLACED", text));
      });
    }
    return doorway;
  }

  private constructor(options: DoorwayOptions) {
    this.#options = options;
    this.#notices = new RareNotices(systemClock, options.notice);
  }

  get address(): Address {
    return this.#listener.address;
  }

  /** The migration under way, if there is one. */
  get current(): Carried | undefined {
    return this.#current;
  }

  /** Nobody comes in any more; what is under way goes on. */
  close(): void {
    this.#endWatch();
    this.#listener.close();
  }

  #connected(socket: Socket): void {
    const { allowedUids } = this.#options;
    if (allowedUids === undefined || this.address.kind === "unix") {
      this.#ask(socket);
      return;
    }
    // Nothing is read before it is known whose it is; an error shows in that it is gone then.
    const ignore = () => {};
    socket.on("error", ignore);
    void peerUid(socket).then((uid) => {
      if (socket.destroyed) return;
      if (uid !== undefined && allowedUids.includes(uid)) {
        this.#ask(socket);
        socket.off("error", ignore);
        return;
      }
      socket.destroy();
      const whose = uid === undefined ? "a user who cannot be told" : `user ${uid}`;
      this.#notices.say(`A connection of ${whose} was turned away: --allow-user lets others in`);
    });
  }

  #ask(socket: Socket): void {
    const channel = new WaitingChannel(new SocketChannel(socket));
    let read = Buffer.alloc(0);
    let isOver = false;
    const gone = (why: string) => {
      if (isOver) return;
      isOver = true;
      cancelTimer();
      channel.destroy();
      this.#notices.say(`A connection ${why}: it was no migration`);
    };
    const cancelTimer = systemClock.after(OPENING_MS_MAX, () =>
      gone(`has said nothing within ${OPENING_MS_MAX / 1000} s`),
    );
    channel.listen({
      data: (bytes) => {
        if (isOver) return;
        read = Buffer.concat([read, bytes]);
        if (read.length < OPENING_BYTES) return;
        isOver = true;
        cancelTimer();
        channel.leave(read);
        this.#knock(channel, read);
      },
      drained: () => {},
      ended: () => gone("was closed before it had said what it is"),
      failed: (error) => gone(`broke (${error.message})`),
    });
  }

  #knock(channel: WaitingChannel, read: Uint8Array): void {
    const opening = openingOf(read);
    if (opening.kind === "migration" && this.#current === undefined) {
      const current = this.#options.begin(channel);
      this.#current = current;
      void current.over.then(() => {
        this.#current = undefined;
      });
      return;
    }
    channel.destroy();
    if (opening.kind === "migration") {
      const text = "Another migration is under way here: each needs a proxy, and a port or path, of its own";
      this.#options.refused(new DeltaveeError("PROTOCOL_REFUSED", text, { vm: "running on source" }));
    } else if (opening.kind === "unknown") this.#notices.say(`A connection was turned away: ${opening.why}`);
    else this.#refuse(opening.why);
  }

  /** Of a migration of which a channel is missing nothing is to arrive. */
  #refuse(why: string): void {
    const error = new DeltaveeError("HYPERVISOR_INCOMPATIBLE", `Cannot carry this migration: ${why}`, {
      vm: "running on source",
    });
    if (this.#current === undefined) this.#options.refused(error);
    else this.#current.refuse(error);
  }
}
