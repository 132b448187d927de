// A connected socket as the engine's Channel. The only place where Node's stream events meet the engine.

import type { Socket } from "node:net";
import type { Channel, ChannelListener } from "../engine/ports.ts";

export class SocketChannel implements Channel {
  readonly #socket: Socket;
  #listener: ChannelListener | undefined;
  #destroyed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Nothing is read before somebody listens.
    socket.pause();
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
    const socket = this.#socket;
    socket.on("data", (bytes) => this.#call((to) => to.data(bytes)));
    socket.on("drain", () => this.#call((to) => to.drained()));
    socket.on("end", () => this.#call((to) => to.ended()));
    socket.on("error", (error) => this.#call((to) => to.failed(error)));
    socket.resume();
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#destroyed || this.#socket.destroyed) return false;
    // A failed write is reported by the socket's "error"; its callback must not pass for success.
    return this.#socket.write(bytes, (error) => {
      if (error == null && !this.#destroyed) written?.();
    });
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#destroyed) this.#socket.resume();
  }

  end(): void {
    // Whatever the peer still sends must be read, or its FIN would never be seen and the socket never closed.
    this.#socket.resume();
    this.#socket.end();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#socket.destroy();
  }

  #call(tell: (listener: ChannelListener) => void): void {
    if (!this.#destroyed && this.#listener !== undefined) tell(this.#listener);
  }
}
