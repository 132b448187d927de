// The way to the destination, as a migration needs it: a first connection, others when that one breaks, and the name
// that both ends of it know the migration by.

import { randomBytes } from "node:crypto";
import { systemClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import type { Channel } from "../engine/ports.ts";
import { type Address, connect } from "../link/address.ts";
import { PacedChannel } from "../link/paced-channel.ts";
import { SocketChannel } from "../link/socket-channel.ts";
import { SecureDialer } from "../link/tls/dialer.ts";
import { chooseIdentity, isLoopback, type SecurityOptions } from "./identity.ts";

export interface SourceLinkOptions extends SecurityOptions {
  to: Address;
  /** Whom the destination's certificate must be for, if not for the host of `to`. */
  tlsHostname?: string | undefined;
  /** Send no faster than this. */
  linkBytesPerSecondMax?: number | undefined;
  /** Where the link is shared with other migrations: each connection goes through this. */
  shared?: ((channel: Channel) => Channel) | undefined;
}

export class SourceLink {
  readonly #options: SourceLinkOptions;
  readonly #dialer: SecureDialer | undefined;

  /** Connects to nothing yet. @throws UsageError for TLS that is not to be had, or not wanted; TlsError */
  constructor(options: SourceLinkOptions) {
    this.#options = options;
    const { to, tlsDir, keysDir, insecurePlaintext, tlsHostname } = options;
    const isTunnel = to.kind === "deltavee";
    const forTls = [tlsDir, keysDir, insecurePlaintext, tlsHostname];
    if (!isTunnel && forTls.some((option) => option !== undefined)) {
      throw new UsageError(
        "TLS is for a tunnel (--to deltavee://...): in direct mode QEMU itself is at the other end",
      );
    }
    const identity = isTunnel ? chooseIdentity(to, "client", options) : undefined;
    this.#dialer =
      identity === undefined || to.kind === "unix"
        ? undefined
        : new SecureDialer(to, identity, tlsHostname ?? to.host);
  }

  /** What is sent can be read by everybody on the way, where that matters. */
  get isOpenToOthers(): boolean {
    const { to } = this.#options;
    return to.kind === "deltavee" && this.#dialer === undefined && !isLoopback(to);
  }

  /** @throws LinkError LINK_FAILED, TlsError */
  async open(timeoutMs: number): Promise<Channel> {
    const { to, linkBytesPerSecondMax, shared = (channel) => channel } = this.#options;
    const channel = shared(
      (await this.#dialer?.connect(timeoutMs)) ?? new SocketChannel(await connect(to, timeoutMs)),
    );
    return linkBytesPerSecondMax === undefined
      ? channel
      : new PacedChannel(channel, systemClock, linkBytesPerSecondMax);
  }

  /** Names the migration: what both ends of the first connection know and nobody else, where that is encrypted. */
  newSession(): string {
    return this.#dialer?.binding ?? randomBytes(16).toString("hex");
  }
}
