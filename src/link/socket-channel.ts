// A connected socket as the engine's Channel. The only place where Node's stream events meet the engine.
//
// A listener that has room of its own (`space`) is read into directly. Node offers that only for sockets that it is
// asked to make (`onread` of net.Socket), so the connection is moved to another Socket object: by its handle, which
// is not documented. Where that does not work, bytes arrive in buffers of Node's and are copied by the listener.
//
// A TLS connection is moved in the same way, once its handshake is done, but reads into a block of this channel's: what
// one read of the socket has brought comes record by record, and whoever is called for each pays for it. They are handed
// over together, at the end of the turn of the event loop or when the block is full; those that come after a pause wait
// here, at most one read of the socket.

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
/** Plain text of one TLS record: what Node deciphers at a time. */
const RECORD_BYTES_MAX = 16 * 1024;
/** What is handed over at a time at most, as a read of a plain connection brings it. */
const BLOCK_BYTES = 256 * 1024;

export class SocketChannel implements Channel {
  #socket: Socket;
  #listener: ChannelListener | undefined;
  #destroyed = false;
  #paused = false;
  /** TLS: deciphered and not handed over yet. The end of it has not come while it is there. */
  #records: Records | undefined;
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
      this.#giveRecords();
      if (this.#records?.isEmpty === false) this.#endHeld = true;
      else this.#call((to) => to.ended());
    });
    socket.on("error", (error) => {
      this.#giveRecords();
      this.#call((to) => to.failed(error));
    });
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
    if (this.#records?.isEmpty === false) process.nextTick(() => this.#giveRecords());
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

  #giveRecords(): void {
    const records = this.#records;
    if (records === undefined) return;
    while (!records.isEmpty && !this.#paused && !this.#destroyed) {
      const bytes = records.take();
      this.#call((to) => to.data(bytes));
    }
    if (!records.isEmpty || !this.#endHeld) return;
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
    const options: SocketOptionsInside = {
      handle,
      allowHalfOpen: old.allowHalfOpen,
      pauseOnCreate: true,
      onread: isTls ? this.#collecting() : this.#directly(space),
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

  #directly(space: () => Uint8Array): SocketOptionsInside["onread"] {
    return {
      buffer: space,
      callback: (bytes, buffer) => {
        this.#call((to) => to.data(buffer.subarray(0, bytes)));
        return this.#goesOn;
      },
    };
  }

  #collecting(): SocketOptionsInside["onread"] {
    const records = new Records();
    this.#records = records;
    let isDue = false;
    const give = () => {
      isDue = false;
      this.#giveRecords();
    };
    return {
      buffer: () => records.room(!this.#goesOn),
      callback: (bytes) => {
        records.came(bytes);
        if (records.isFull) this.#giveRecords();
        else if (!isDue) {
          isDue = true;
          setImmediate(give);
        }
        return this.#goesOn;
      },
    };
  }

  get #goesOn(): boolean {
    return !this.#paused && !this.#destroyed;
  }
}

/** What one connection has deciphered, in the order in which it came. */
class Records {
  #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  /** Of the block: not handed over yet. */
  #start = 0;
  #end = 0;
  /** Full blocks before it. */
  readonly #before: Uint8Array[] = [];

  get isEmpty(): boolean {
    return this.#start === this.#end && this.#before.length === 0;
  }

  /** The next record may not fit. */
  get isFull(): boolean {
    return this.#end + RECORD_BYTES_MAX > this.#block.length;
  }

  /** For the next record. `areKept`: whoever has paused may still read what was handed over before. */
  room(areKept: boolean): Uint8Array {
    if (this.isFull) {
      if (areKept || !this.isEmpty) {
        if (this.#start < this.#end) this.#before.push(this.#block.subarray(this.#start, this.#end));
        this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      }
      this.#start = this.#end = 0;
    }
    return this.#block.subarray(this.#end);
  }

  came(bytes: number): void {
    this.#end += bytes;
  }

  take(): Uint8Array {
    const before = this.#before.shift();
    if (before !== undefined) return before;
    const bytes = this.#block.subarray(this.#start, this.#end);
    this.#start = this.#end;
    return bytes;
  }
}
