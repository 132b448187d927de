// The pictures in an MPEG transport stream: of each, its presentation time and when the last of its bytes was there.
// Takes the first video stream of the first programme, looks at headers alone and decodes nothing. Over TCP no byte is
// lost, so a packet that is out of place is an error and nothing to search a way around.
// Format: ISO/IEC 13818-1, 2.4.3 (packets), 2.4.3.6 (PES), 2.4.4 (tables).

export interface Picture {
  /** When it is to be shown, in ms of the stream's own time; unwrapped, so that it grows over days. */
  readonly presentationMs: number;
  /** Of the caller's clock: its last byte was there. */
  readonly arrivedMs: number;
}

export class TransportStreamError extends Error {
  override readonly name = "TransportStreamError";

  constructor(message: string, offsetBytes: number) {
    super(`${message} (at byte ${offsetBytes} of the stream)`);
  }
}

const PACKET_BYTES = 188;
const SYNC_BYTE = 0x47;
const PAT_PID = 0;
const NULL_PID = 0x1fff;
/** ISO/IEC 13818-1, table 2-34: MPEG-1, MPEG-2 and MPEG-4 video, H.264, H.265. */
const VIDEO_STREAM_TYPES: ReadonlySet<number> = new Set([0x01, 0x02, 0x10, 0x1b, 0x24]);

const TICKS_PER_MS = 90;
const TICKS_WRAP = 2 ** 33;

/** Takes bytes cut anywhere; pictures come in the order in which they are sent. */
export class TransportStreamParser {
  readonly #onPicture: (picture: Picture) => void;
  /** A packet of which the end is still to come. */
  readonly #packet = Buffer.alloc(PACKET_BYTES);
  #packetBytes = 0;
  #offsetBytes = 0;
  #programmePid: number | undefined;
  #videoPid: number | undefined;
  /** Of the video's last packet: 0 to 15, each one more than the one before. */
  #continuity: number | undefined;
  #packetsLost = 0;
  #ticks: number | undefined;
  #arrivedMs = 0;
  #lastTicks: number | undefined;

  constructor(onPicture: (picture: Picture) => void) {
    this.#onPicture = onPicture;
  }

  /** Packets of the video that the server left out, as far as their counter of four bits tells. */
  get packetsLost(): number {
    return this.#packetsLost;
  }

  /** @throws TransportStreamError, after which the parser must not be used any more */
  push(chunk: Uint8Array, nowMs: number): void {
    let at = 0;
    if (this.#packetBytes > 0) {
      at = Math.min(chunk.length, PACKET_BYTES - this.#packetBytes);
      this.#packet.set(chunk.subarray(0, at), this.#packetBytes);
      this.#packetBytes += at;
      if (this.#packetBytes < PACKET_BYTES) return;
      this.#take(this.#packet, nowMs);
    }
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    for (; at + PACKET_BYTES <= bytes.length; at += PACKET_BYTES) {
      this.#take(bytes.subarray(at, at + PACKET_BYTES), nowMs);
    }
    this.#packet.set(bytes.subarray(at));
    this.#packetBytes = bytes.length - at;
  }

  #take(packet: Buffer, nowMs: number): void {
    if (packet[0] !== SYNC_BYTE) throw this.#error("A packet does not begin with the sync byte");
    const pid = packet.readUInt16BE(1) & 0x1fff;
    const isUnitStart = (packet[1]! & 0x40) !== 0;
    const hasAdaptation = (packet[3]! & 0x20) !== 0;
    const hasPayload = (packet[3]! & 0x10) !== 0;
    const payloadAt = hasAdaptation ? 5 + packet[4]! : 4;
    if (payloadAt > PACKET_BYTES) throw this.#error("An adaptation field is longer than its packet");
    if (hasPayload && pid !== NULL_PID) {
      const payload = packet.subarray(payloadAt);
      if (pid === PAT_PID) {
        if (isUnitStart) this.#programmePid ??= this.#programmeOf(payload);
      } else if (pid === this.#videoPid) {
        this.#video(payload, isUnitStart, packet[3]! & 0x0f, nowMs);
      } else if (pid === this.#programmePid && isUnitStart) {
        this.#videoPid ??= this.#videoOf(payload);
      }
    }
    this.#offsetBytes += PACKET_BYTES;
  }

  /** PID of the first programme's own table; undefined when there is none but the network's. */
  #programmeOf(payload: Buffer): number | undefined {
    const { section, endAt } = this.#section(payload, 0x00);
    for (let at = 8; at + 4 <= endAt; at += 4) {
      if (section.readUInt16BE(at) !== 0) return section.readUInt16BE(at + 2) & 0x1fff;
    }
    return undefined;
  }

  #videoOf(payload: Buffer): number {
    const { section, endAt } = this.#section(payload, 0x02);
    if (endAt < 12) throw this.#error("A programme's table is too short");
    let at = 12 + (section.readUInt16BE(10) & 0x0fff);
    while (at + 5 <= endAt) {
      if (VIDEO_STREAM_TYPES.has(section[at]!)) return section.readUInt16BE(at + 1) & 0x1fff;
      at += 5 + (section.readUInt16BE(at + 3) & 0x0fff);
    }
    throw this.#error("The programme has no video");
  }

  /** `endAt`: of its entries, before the checksum. Tables that fill more than a packet are not to be expected here. */
  #section(payload: Buffer, tableId: number): { section: Buffer; endAt: number } {
    const section = payload.subarray(1 + (payload[0] ?? 0));
    if (section.length < 8 || section[0] !== tableId) throw this.#error("A table is not what it should be");
    const endAt = 3 + (section.readUInt16BE(1) & 0x0fff) - 4;
    if (endAt > section.length) throw this.#error("A table is longer than its packet");
    return { section, endAt };
  }

  #video(payload: Buffer, isUnitStart: boolean, continuity: number, nowMs: number): void {
    // A packet may be sent twice (2.4.3.3): the second says nothing new.
    if (continuity === this.#continuity) return;
    if (this.#continuity !== undefined) this.#packetsLost += (continuity - this.#continuity + 15) & 0x0f;
    this.#continuity = continuity;
    if (isUnitStart) {
      this.#finishPicture();
      this.#ticks = this.#presentationTicks(payload);
    }
    this.#arrivedMs = nowMs;
  }

  /** A picture says nothing of its length: that it was whole is known when the next one begins. */
  #finishPicture(): void {
    if (this.#ticks === undefined) return;
    const last = this.#lastTicks ?? this.#ticks;
    // The nearest of the times that look alike: the counter of 33 bits wraps after 26.5 hours.
    const ticks = this.#ticks + Math.round((last - this.#ticks) / TICKS_WRAP) * TICKS_WRAP;
    this.#lastTicks = ticks;
    this.#ticks = undefined;
    this.#onPicture({ presentationMs: ticks / TICKS_PER_MS, arrivedMs: this.#arrivedMs });
  }

  #presentationTicks(payload: Buffer): number {
    if (payload.length < 14 || payload.readUIntBE(0, 3) !== 1)
      throw this.#error("A picture has no PES header");
    if ((payload[7]! & 0x80) === 0) throw this.#error("A picture has no presentation time");
    const high = (payload[9]! >> 1) & 0x07;
    const middle = payload.readUInt16BE(10) >> 1;
    const low = payload.readUInt16BE(12) >> 1;
    return high * 2 ** 30 + middle * 2 ** 15 + low;
  }

  #error(message: string): TransportStreamError {
    return new TransportStreamError(message, this.#offsetBytes);
  }
}
