// A connected socket as the engine's Channel. The only place where Node's stream events meet the engine.
//
// A listener that has room of its own (`space`) is read into directly. Node offers that only for sockets that it is
// asked to make (`onread` of net.Socket), so the connection is moved to another Socket object: by its handle, which
// is not documented. Where that does not work, bytes arrive in buffers of Node's and are copied by the listener.

import { Socket } from "node:net";
import type { Channel, ChannelListener } from "../engine/ports.ts";

/** What is used of Node's inside: the handle of a socket, and a constructor that takes one. */
type HandleOwner = { _handle?: { reading?: boolean } | null };
interface SocketOptionsInside {
  handle: unknown;
  allowHalfOpen: boolean;
  /** Else it would read at once, paused or not. */
  pauseOnCreate: true;
  onread: { buffer: () => Uint8Array; callback: (bytes: number, buffer: Uint8Array) => boolean };
}

/**
 * What may wait in this process until the operating system takes it. Node's own limit, 16 KiB, is less than one
 * batch: whoever heeds it stops after each, and both ends take turns instead of working side by side.
 */
const UNSENT_BYTES_MAX = 1024 * 1024;

export class SocketChannel implements Channel {
  #socket: Socket;
  #listener: ChannelListener | undefined;
  #destroyed = false;
  #paused = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Nothing is read before somebody listens.
    socket.pause();
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
    const space = listener.space?.bind(listener);
    if (space === undefined || !this.#readInto(space)) {
      this.#socket.on("data", (bytes) => this.#call((to) => to.data(bytes)));
    }
    const socket = this.#socket;
    socket.on("drain", () => this.#call((to) => to.drained()));
    socket.on("end", () => this.#call((to) => to.ended()));
    socket.on("error", (error) => this.#call((to) => to.failed(error)));
    if (!this.#paused) socket.resume();
  }

  write(bytes: Uint8Array, written?: () => void): boolean {
    if (this.#destroyed || this.#socket.destroyed) return false;
    // A failed write is reported by the socket's "error"; its callback must not pass for success.
    const flowing = this.#socket.write(bytes, (error) => {
      if (error == null && !this.#destroyed) written?.();
    });
    // "drain" follows only where Node's limit was reached too.
    return flowing || this.#socket.writableLength <= UNSENT_BYTES_MAX;
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#paused = false;
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

  /** Moves the connection to a Socket that reads into the listener's room. False: it could not be, nothing was done. */
  #readInto(space: () => Uint8Array): boolean {
    const old = this.#socket;
    const owner = old as unknown as HandleOwner;
    const handle = owner._handle;
    // Bytes that were read already would be lost with the old object.
    if (handle == null || handle.reading === true || old.readableLength > 0 || old.bytesWritten > 0)
      return false;
    const options: SocketOptionsInside = {
      handle,
      allowHalfOpen: old.allowHalfOpen,
      pauseOnCreate: true,
      onread: {
        buffer: space,
        callback: (bytes, buffer) => {
          this.#call((to) => to.data(buffer.subarray(0, bytes)));
          return !this.#paused && !this.#destroyed;
        },
      },
    };
    owner._handle = null;
    // The old object has no connection any more; it is not to say that it was closed.
    old.removeAllListeners();
    this.#socket = new Socket(options as object);
    return true;
  }
}
