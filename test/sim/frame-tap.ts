// Sees which frames pass on a connection, by their headers alone (wire/PROTOCOL.md, "Frames"): cheap, and without
// the reader that is being tested.

const HEADER_BYTES = 16;
const SEEN_BYTES = HEADER_BYTES + 8;
const NAMES = [
  "",
  "hello",
  "welcome",
  "refuse",
  "data",
  "ack",
  "return",
  "loaded",
  "commit",
  "running",
  "abort",
  "keepalive",
  "resume",
  "resumed",
  "returned",
  "done",
  "ready",
] as const;

export interface SeenFrame {
  name: string;
  payloadBytes: number;
  sequence: number;
  /** First eight bytes of the payload, as a number. */
  value: number;
}

/** @returns what is to be given the bytes, in any pieces; calls `see` for each frame as soon as it is known */
export function frameTap(see: (frame: SeenFrame) => void): (bytes: Uint8Array) => void {
  const head = Buffer.alloc(SEEN_BYTES);
  let headBytes = 0;
  let skipBytes = 0;
  return (bytes) => {
    for (let at = 0; at < bytes.length; ) {
      if (skipBytes > 0) {
        const skipped = Math.min(skipBytes, bytes.length - at);
        skipBytes -= skipped;
        at += skipped;
        continue;
      }
      const payloadBytes = headBytes < HEADER_BYTES ? 0 : head.readUInt32BE(4);
      const wanted = HEADER_BYTES + Math.min(8, payloadBytes);
      const taken = Math.min(
        (headBytes < HEADER_BYTES ? HEADER_BYTES : wanted) - headBytes,
        bytes.length - at,
      );
      head.set(bytes.subarray(at, at + taken), headBytes);
      headBytes += taken;
      at += taken;
      if (headBytes < HEADER_BYTES) continue;
      const length = head.readUInt32BE(4);
      const seen = Math.min(8, length);
      if (headBytes < HEADER_BYTES + seen) continue;
      headBytes = 0;
      skipBytes = length - seen;
      const value = seen === 8 ? Number(head.readBigUInt64BE(HEADER_BYTES)) : 0;
      const sequence = Number(head.readBigUInt64BE(8));
      see({ name: NAMES[head[2]!] ?? `type ${head[2]}`, payloadBytes: length, sequence, value });
    }
  };
}
