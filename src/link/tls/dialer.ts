// Connects to one and the same peer, again and again: whoever answers later has to be who answered first. Knows nothing
// of what is said.

import { TlsError } from "../../base/errors.ts";
import { type Address, connect } from "../address.ts";
import { SocketChannel } from "../socket-channel.ts";
import type { TlsIdentity } from "./identity.ts";
import { type Peer, secureClient } from "./secure.ts";

export class SecureDialer {
  readonly #address: Address;
  readonly #identity: TlsIdentity;
  readonly #host: string;
  #first: { peer: Peer; binding: string } | undefined;

  /** `host`: whom the peer's certificate must be for. */
  constructor(address: Address, identity: TlsIdentity, host: string) {
    this.#address = address;
    this.#identity = identity;
    this.#host = host;
  }

  /** What the ends of the first connection know, and nobody else. Undefined: there is none yet. */
  get binding(): string | undefined {
    return this.#first?.binding;
  }

  /** @throws LinkError LINK_FAILED, TlsError */
  async connect(timeoutMs: number): Promise<SocketChannel> {
    const startMs = performance.now();
    const socket = await connect(this.#address, timeoutMs);
    const leftMs = Math.max(1, timeoutMs - (performance.now() - startMs));
    const connection = await secureClient(socket, this.#identity, this.#host, leftMs);
    const { peer, binding } = connection;
    if (this.#first !== undefined && peer.fingerprint !== this.#first.peer.fingerprint) {
      connection.socket.destroy();
      const text = `The peer at ${this.#host} is not the one that the migration began with: another certificate`;
      throw new TlsError("TLS_PEER_REJECTED", text);
    }
    this.#first ??= { peer, binding };
    return new SocketChannel(connection.socket);
  }
}
