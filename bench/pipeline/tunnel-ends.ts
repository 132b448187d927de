// The far ends of a tunnel that cost next to nothing, so that what is measured is the engine: a destination that
// acknowledges DATA unseen, and a source that plays what another one has sent. Frames: src/wire/PROTOCOL.md.

import type { Hello } from "../../src/wire/bodies.ts";
import { encodeFrame, HEADER_BYTES, HELLO_FIXED_BYTES } from "../../src/wire/frame.ts";
import { PROTOCOL_VERSION } from "../../src/wire/handshake.ts";

const TYPE = { HELLO: 1, WELCOME: 2, DATA: 4 } as const;

/** Walks over frames in pieces of a byte stream without copying them. */
class FrameWalk {
  readonly #head = Buffer.alloc(HEADER_BYTES);
  #headBytes = 0;
  #payloadLeft = 0;

  /** Calls `frame` when the last byte of a frame has passed. */
  push(bytes: Uint8Array, frame: (type: number, sequence: number) => void): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#headBytes < HEADER_BYTES) {
        const taken = Math.min(HEADER_BYTES - this.#headBytes, bytes.length - at);
        this.#head.set(bytes.subarray(at, at + taken), this.#headBytes);
        this.#headBytes += taken;
        at += taken;
        if (this.#headBytes < HEADER_BYTES) return;
        this.#payloadLeft = this.#head.readUInt32BE(4);
      }
      const taken = Math.min(this.#payloadLeft, bytes.length - at);
      this.#payloadLeft -= taken;
      at += taken;
      if (this.#payloadLeft > 0) return;
      this.#headBytes = 0;
      frame(this.#head[2]!, Number(this.#head.readBigUInt64BE(8)));
    }
  }
}

/** Takes what a source engine sends; the answers go to `send`. */
export class AcknowledgingDestination {
  readonly #walk = new FrameWalk();
  readonly #send: (bytes: Uint8Array) => void;
  #hello: Buffer | undefined = Buffer.alloc(0);

  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send;
  }

  push(bytes: Uint8Array): void {
    if (this.#hello !== undefined) this.#hello = Buffer.concat([this.#hello, bytes]);
    let acknowledged = 0;
    this.#walk.push(bytes, (type, sequence) => {
      if (type === TYPE.HELLO) this.#welcome();
      else if (type === TYPE.DATA) acknowledged = sequence;
    });
    if (acknowledged === 0) return;
    this.#send(encodeFrame({ type: "ack", sequence: acknowledged }));
  }

  #welcome(): void {
    const hello = this.#hello!;
    this.#hello = undefined;
    const body = hello.subarray(HEADER_BYTES + HELLO_FIXED_BYTES, HEADER_BYTES + hello.readUInt32BE(4));
    const { entropyCodecs, hypervisor } = JSON.parse(body.toString()) as Hello;
    this.#send(
      encodeFrame({
        type: "welcome",
        version: PROTOCOL_VERSION,
        body: { deltavee: "benchmark", entropyCodecs, hypervisor },
      }),
    );
  }
}

/** What a source sent, cut behind HELLO: only when the destination has answered may the rest follow. */
export function splitHello(sent: Buffer): { hello: Buffer; rest: Buffer } {
  const helloBytes = HEADER_BYTES + sent.readUInt32BE(4);
  return { hello: sent.subarray(0, helloBytes), rest: sent.subarray(helloBytes) };
}
