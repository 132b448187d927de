// A connected socket as the engine's Channel. The only place where Node's stream events meet the engine.
//
// A listener that has room of its own (`space`) is read into directly. Node offers that only for sockets that it is
// asked to make (`onread` of net.Socket), so the connection is moved to another Socket object: by its handle, which
// is not documented. Where that does not work, bytes arrive in buffers of Node's and are copied by the listener.
//
// A TLS connection is moved in the same way, once its handshake is done. It brings several records at a time, whether
// it was paused by the first of them or not: those that come after are kept here, at most one read of the socket.

import { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Channel, ChannelListener } from "../engine/ports.ts";

/** What is used of Node's inside: the handle of a socket, and a constructor that takes one. */
type HandleOwner = { _handle?: { reading?: boolean; readStop(): number } | null; ssl?: unknown };
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
/** Plain text of one TLS record: what comes at a time when there is no room of the listener's to put it. */
const RECORD_BYTES_MAX = 16 * 1024;

export class SocketChannel implements Channel {
  #socket: Socket;
  #listener: ChannelListener | undefined;
  #destroyed = false;
  #paused = false;
  /** Read while the listener was paused. */
  readonly #held: Uint8Array[] = [];
  #endHeld = false;
  /** It broke before anybody listened. */
  #failure: Error | undefined;
  readonly #failedEarly = (error: Error): void => {
    this.#failure = error;
  };

  constructor(socket: Socket) {
    this.#socket = socket;
    // Without a listener Node would end the process for it.
    socket.on("error", this.#failedEarly);
    // Nothing is read before somebody listens.
    socket.pause();
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
    const failure = this.#failure;
    if (failure !== undefined) {
      process.nextTick(() => this.#call((to) => to.failed(failure)));
      return;
    }
    this.#socket.off("error", this.#failedEarly);
    const space = listener.space?.bind(listener);
    if (space === undefined || !this.#readInto(space)) {
      this.#socket.on("data", (bytes) => this.#call((to) => to.data(bytes)));
    }
    const socket = this.#socket;
    socket.on("drain", () => this.#call((to) => to.drained()));
    socket.on("end", () => {
      if (this.#held.length > 0) this.#endHeld = true;
      else this.#call((to) => to.ended());
    });
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
    // Not from within the call, and before anything that the socket has to say.
    if (this.#held.length > 0) process.nextTick(() => this.#giveHeld());
    if (!this.#destroyed) this.#socket.resume();
  }

  end(): void {
    // Whatever the peer still sends must be read, or its FIN would never be seen and the socket never closed. A pause
    // does not hold any more: nobody is to say that it is over.
    this.resume();
    this.#socket.end();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#socket.destroy();
  }

  #call(tell: (listener: ChannelListener) => void): void {
    if (!this.#destroyed && this.#listener !== undefined) tell(this.#listener);
  }

  #giveHeld(): void {
    while (this.#held.length > 0 && !this.#paused && !this.#destroyed) {
      const bytes = this.#held.shift()!;
      this.#call((to) => to.data(bytes));
    }
    if (this.#held.length > 0 || !this.#endHeld) return;
    this.#endHeld = false;
    this.#call((to) => to.ended());
  }

  /** Moves the connection to a Socket that reads into the listener's room. False: it could not be, nothing was done. */
  #readInto(space: () => Uint8Array): boolean {
    const old = this.#socket;
    const owner = old as unknown as HandleOwner;
    const handle = owner._handle;
    // As node:tls documents for its sockets; it takes a while to load, and a tunnel in plain text does without.
    const isTls = (old as Partial<TLSSocket>).encrypted === true;
    // Bytes that were read already would be lost with the old object. TLS has read its handshake, and what has come
    // with it has been deciphered, too.
    if (handle == null || (handle.reading === true && !isTls)) return false;
    if (old.readableLength > 0 || old.readableEnded || old.bytesWritten > 0) return false;
    const ofOurOwn = isTls ? Buffer.alloc(RECORD_BYTES_MAX) : undefined;
    const options: SocketOptionsInside = {
      handle,
      allowHalfOpen: old.allowHalfOpen,
      pauseOnCreate: true,
      onread: {
        // What lies in the listener's room is not to be written over before it goes on.
        buffer: () => (ofOurOwn !== undefined && this.#isHolding ? ofOurOwn : space()),
        callback: (bytes, buffer) => {
          const filled = buffer.subarray(0, bytes);
          if (isTls && this.#isHolding) this.#held.push(Buffer.from(filled));
          // Whoever pauses in this call may read on in it for as long as the pause lasts: not in what is read into then.
          else if (buffer === ofOurOwn) this.#call((to) => to.data(Buffer.from(filled)));
          else this.#call((to) => to.data(filled));
          return !this.#paused && !this.#destroyed;
        },
      },
    };
    if (isTls) handle.readStop();
    owner._handle = null;
    // The old object has no connection any more; it is not to say that it was closed.
    old.removeAllListeners();
    this.#socket = new Socket(options as object);
    // So that what OpenSSL holds is freed when the connection is closed.
    if (isTls) (this.#socket as unknown as HandleOwner).ssl = handle;
    return true;
  }

  get #isHolding(): boolean {
    return this.#paused || this.#held.length > 0;
  }
}
