// The memory in which batches' jobs go to worker threads and their results come back: one queue of jobs that every
// worker takes from, one record per slot with the job's description and then its result. No locks, nothing
// allocated per job but the objects that are told. Knows nothing of how batches are coded.

import { assert } from "../base/assert.ts";
import { ProtocolError } from "../base/errors.ts";
import type { DecodedBatch, EncodedBatch } from "../codec/entropy/batch-coder.ts";
import type { EntropyCodecId } from "../codec/entropy/entropy-coder.ts";

/** A cache line of 32-bit words: what different threads write lies on different ones. */
const LINE_WORDS = 16;

// Positions in the queue count up and wrap at 32 bits; the submitted ones end before SUBMITTED.
/** First position that no worker has taken. Any worker. */
const TAKEN = 0;
/** Main thread; workers without a job sleep on it. */
const SUBMITTED = LINE_WORDS;
/** Position whose end the main thread wants to be told of: the oldest of what it waits for. Main thread. */
const AWAITED = 2 * LINE_WORDS;
/** The queue: slots by position. Main thread. */
const QUEUE = 3 * LINE_WORDS;

// Words of a slot's record. The main thread writes the first line and STATE while no worker has the job, then the
// worker the rest, STATE last.
const OPERATION = 0;
const CODEC = 1;
const LEVEL = 2;
const RAW_BYTES = 3;
const CODED_BYTES = 4;
const RAW_CHECKSUM = 5;
const STATE = LINE_WORDS;
const RESULT_CODEC = LINE_WORDS + 1;
const RESULT_ADDRESS = LINE_WORDS + 2;
const RESULT_CODED_BYTES = LINE_WORDS + 3;
const RESULT_RAW_CHECKSUM = LINE_WORDS + 4;
/** Bytes of the message, where decoding was refused. */
const RESULT_MESSAGE_BYTES = LINE_WORDS + 5;
/** A 64-bit float. */
const RESULT_MS = LINE_WORDS + 6;
const MESSAGE = 2 * LINE_WORDS;
const MESSAGE_BYTES_MAX = 256;
const RECORD_WORDS = MESSAGE + MESSAGE_BYTES_MAX / 4;

const OPERATION_ENCODE = 1;
const OPERATION_DECODE = 2;

const STATE_PENDING = 1;
const STATE_DONE = 2;
const STATE_REFUSED = 3;

/** What workers do with a job. */
export interface JobHandler {
  encode(slot: number, rawBytes: number, codecId: EntropyCodecId, level: number): EncodedBatch;
  decode(
    slot: number,
    codedBytes: number,
    codecId: number,
    rawBytes: number,
    rawChecksum: number,
  ): DecodedBatch | ProtocolError;
}

export class BatchRing {
  /** To be shared with workers, which make a BatchRing of their own on it. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #positionMask: number;
  readonly #firstRecord: number;

  constructor(slotCount: number, shared?: SharedArrayBuffer) {
    const capacity = 2 ** Math.ceil(Math.log2(slotCount));
    this.#positionMask = capacity - 1;
    this.#firstRecord = QUEUE + Math.ceil(capacity / LINE_WORDS) * LINE_WORDS;
    const bytes = (this.#firstRecord + slotCount * RECORD_WORDS) * 4;
    this.buffer = shared ?? new SharedArrayBuffer(bytes);
    assert(this.buffer.byteLength === bytes, "both sides know the same number of slots");
    this.#words = new Int32Array(this.buffer);
    this.#floats = new Float64Array(this.buffer);
  }

  // Main thread

  submitEncode(slot: number, rawBytes: number, codecId: EntropyCodecId, level: number): number {
    const record = this.#record(slot);
    this.#words[record + OPERATION] = OPERATION_ENCODE;
    this.#words[record + RAW_BYTES] = rawBytes;
    this.#words[record + CODEC] = codecId;
    this.#words[record + LEVEL] = level;
    return this.#submit(slot);
  }

  submitDecode(
    slot: number,
    codedBytes: number,
    codecId: EntropyCodecId,
    rawBytes: number,
    rawChecksum: number,
  ): number {
    const record = this.#record(slot);
    this.#words[record + OPERATION] = OPERATION_DECODE;
    this.#words[record + CODED_BYTES] = codedBytes;
    this.#words[record + CODEC] = codecId;
    this.#words[record + RAW_BYTES] = rawBytes;
    this.#words[record + RAW_CHECKSUM] = rawChecksum;
    return this.#submit(slot);
  }

  /** Whether the slot's job at this position has ended; if not, the worker that ends it will say so. */
  endedOrAwaited(position: number, slot: number): boolean {
    const state = this.#record(slot) + STATE;
    if (Atomics.load(this.#words, state) !== STATE_PENDING) return true;
    Atomics.store(this.#words, AWAITED, position);
    // It may have ended before AWAITED was to be seen.
    return Atomics.load(this.#words, state) !== STATE_PENDING;
  }

  encoded(slot: number): EncodedBatch {
    const record = this.#record(slot);
    return {
      codecId: this.#words[record + RESULT_CODEC]! as EntropyCodecId,
      codedAddress: this.#words[record + RESULT_ADDRESS]! >>> 0,
      codedBytes: this.#words[record + RESULT_CODED_BYTES]!,
      rawChecksum: this.#words[record + RESULT_RAW_CHECKSUM]! >>> 0,
      encodeMs: this.#floats[(record + RESULT_MS) / 2]!,
    };
  }

  decoded(slot: number): DecodedBatch | ProtocolError {
    const record = this.#record(slot);
    if (this.#words[record + STATE] === STATE_REFUSED) {
      const message = this.#message(record).toString("utf8", 0, this.#words[record + RESULT_MESSAGE_BYTES]!);
      return new ProtocolError("PROTOCOL_INVALID_FRAME", message);
    }
    return {
      rawAddress: this.#words[record + RESULT_ADDRESS]! >>> 0,
      decodeMs: this.#floats[(record + RESULT_MS) / 2]!,
    };
  }

  // Workers

  /** Position of a job, now this worker's. Sleeps until there is one. */
  take(): number {
    const words = this.#words;
    for (;;) {
      const position = Atomics.load(words, TAKEN);
      const submitted = Atomics.load(words, SUBMITTED);
      if (position === submitted) Atomics.wait(words, SUBMITTED, submitted);
      else if (Atomics.compareExchange(words, TAKEN, position, (position + 1) | 0) === position)
        return position;
    }
  }

  /** Does the job that `take` gave. True: the main thread is to be told that one has ended. */
  run(position: number, handler: JobHandler): boolean {
    const words = this.#words;
    // Nobody writes to this place of the queue before the job has ended: it has room for every slot.
    const slot = words[QUEUE + (position & this.#positionMask)]!;
    const record = this.#record(slot);
    const rawBytes = words[record + RAW_BYTES]!;
    const codecId = words[record + CODEC]!;
    let state = STATE_DONE;
    if (words[record + OPERATION] === OPERATION_ENCODE) {
      const result = handler.encode(slot, rawBytes, codecId as EntropyCodecId, words[record + LEVEL]!);
      words[record + RESULT_CODEC] = result.codecId;
      words[record + RESULT_ADDRESS] = result.codedAddress;
      words[record + RESULT_CODED_BYTES] = result.codedBytes;
      words[record + RESULT_RAW_CHECKSUM] = result.rawChecksum;
      this.#floats[(record + RESULT_MS) / 2] = result.encodeMs;
    } else {
      const codedBytes = words[record + CODED_BYTES]!;
      const result = handler.decode(slot, codedBytes, codecId, rawBytes, words[record + RAW_CHECKSUM]! >>> 0);
      if (result instanceof ProtocolError) {
        state = STATE_REFUSED;
        words[record + RESULT_MESSAGE_BYTES] = this.#message(record).write(result.message, "utf8");
      } else {
        words[record + RESULT_ADDRESS] = result.rawAddress;
        this.#floats[(record + RESULT_MS) / 2] = result.decodeMs;
      }
    }
    // Publishes all of the above, and what the job has written to the slot.
    Atomics.store(words, record + STATE, state);
    return Atomics.load(words, AWAITED) === position;
  }

  #submit(slot: number): number {
    const words = this.#words;
    Atomics.store(words, this.#record(slot) + STATE, STATE_PENDING);
    const position = Atomics.load(words, SUBMITTED);
    words[QUEUE + (position & this.#positionMask)] = slot;
    Atomics.store(words, SUBMITTED, (position + 1) | 0);
    Atomics.notify(words, SUBMITTED, 1);
    return position;
  }

  #record(slot: number): number {
    return this.#firstRecord + slot * RECORD_WORDS;
  }

  #message(record: number): Buffer {
    return Buffer.from(this.buffer, (record + MESSAGE) * 4, MESSAGE_BYTES_MAX);
  }
}
