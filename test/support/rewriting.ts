// A StreamRewriter fed through the home memory, as the source engine does it, with either of its sinks behind it:
// what comes out is a stream again, straight from the one or by way of batches from the other.

import type { DeltaCodecId } from "../../src/codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../../src/codec/delta/delta-codecs.ts";
import { InlineBatchCoder } from "../../src/codec/entropy/inline-batch-coder.ts";
import { InputBuffer } from "../../src/engine/intake/input-buffer.ts";
import { BatchSink, type SealedBatch } from "../../src/engine/pages/batch-sink.ts";
import { ContentWindow } from "../../src/engine/pages/content-window.ts";
import type { PageSink } from "../../src/engine/pages/page-sink.ts";
import { StreamRewriter } from "../../src/engine/pages/rewriter.ts";
import { StreamSink } from "../../src/engine/pages/stream-sink.ts";
import { PageCache } from "../../src/memory/page-cache.ts";
import { Command } from "../../src/stream/format.ts";
import { StreamReader } from "../../src/stream/reader.ts";
import { carriesContent, type PageClass, type PageObserver } from "../../src/trace/format.ts";
import { makeHome } from "./engine-parts.ts";
import { Expansion } from "./expansion.ts";
import type { ZeroRange } from "./loader.ts";
import { asUntouchedRam } from "./untouched.ts";

/** Of the page cache; "none": method standard. */
export type CacheSize = "none" | "zero" | "tiny" | "plenty";
export const CACHE_SIZES: readonly CacheSize[] = ["none", "zero", "tiny", "plenty"];

type Home = ReturnType<typeof makeHome>;

abstract class Rewriting {
  readonly events: string[] = [];
  /** What the observer was told of each page. */
  readonly observed: { block: number; page: number; pageClass: PageClass; content: Buffer }[] = [];
  mayPing = false;
  protected readonly home: Home = makeHome();
  readonly #cacheSize: CacheSize;
  readonly #observes: boolean;
  readonly #untouched: readonly ZeroRange[];
  readonly #input = new InputBuffer(this.home.memory);
  #rewriter: StreamRewriter | undefined;
  #reader: StreamReader | undefined;

  /** `observes`: pages are told one by one, whatever is done with them. `untouched`: by the destination. */
  constructor(cacheSize: CacheSize, observes = true, untouched: readonly ZeroRange[] = []) {
    this.#cacheSize = cacheSize;
    this.#observes = observes;
    this.#untouched = untouched;
  }

  get rewriter(): StreamRewriter {
    if (this.#rewriter === undefined) throw new Error("nothing was rewritten yet");
    return this.#rewriter;
  }

  protected get cache(): PageCache | undefined {
    return this.rewriter.cache;
  }

  protected abstract sink(): PageSink;

  /** Puts away what is complete, until the sink is not full. */
  protected abstract drain(): void;

  /** @throws whatever the reader and the rewriter throw */
  push(bytes: Uint8Array): void {
    this.#rewriter ??= this.#makeRewriter();
    this.#reader ??= new StreamReader(this.#rewriter);
    const input = this.#input;
    for (let at = 0; at < bytes.length; ) {
      at += input.append(bytes.subarray(at));
      // A reader that stopped because the sink was full has perhaps not moved, and is to go on all the same.
      let wasFull = true;
      for (let before = -1; (wasFull || before !== input.head) && input.lengthBytes > 0; ) {
        before = input.head;
        input.taken(this.#reader.consume(input.bytes, input.head, input.tail));
        wasFull = this.#rewriter.isFull;
        this.drain();
      }
    }
  }

  #makeRewriter(): StreamRewriter {
    const factory = (pageBytes: number, memory: Home["memory"]) => {
      // A few slots that are fought for, beside what is kept of each page.
      const limitBytes = { none: 0, zero: 0, tiny: 3.5 * pageBytes, plenty: 1 << 22 }[this.#cacheSize];
      return new PageCache({ pageBytes, memory, limitBytes });
    };
    const observer: PageObserver = {
      ramBlocks: () => {},
      codec: () => {},
      observe: (block, page, _iteration, pageClass, _deltaBytes, content, offset) => {
        const bytes = carriesContent(pageClass) ? content.subarray(offset, offset + 512) : [];
        this.observed.push({ block, page, pageClass, content: Buffer.from(bytes) });
      },
    };
    const rewriter = new StreamRewriter({
      ...this.home,
      sink: this.sink(),
      observer: this.#observes ? observer : undefined,
      cacheFactory: this.#cacheSize === "none" ? undefined : factory,
      listener: {
        command: (command) => {
          if (command === Command.OPEN_RETURN_PATH) this.mayPing = true;
        },
        stopped: () => this.events.push("stopped"),
        deviceState: () => {
          this.events.push("deviceState");
          this.mayPing = false;
        },
        opaque: (reason) => {
          this.events.push(`opaque: ${reason}`);
          this.mayPing = false;
        },
      },
    });
    rewriter.leaveOutZerosOf(asUntouchedRam(this.#untouched));
    return rewriter;
  }
}

/** As direct mode does it. */
export class DirectRewriting extends Rewriting {
  readonly #sink = new StreamSink(this.home.memory, this.home.kernel);
  readonly #taken: Buffer[] = [];

  get writer() {
    return this.#sink.writer;
  }

  /** Everything since the last call. */
  take(): Buffer {
    this.#takeRegion();
    return Buffer.concat(this.#taken.splice(0));
  }

  protected override sink(): PageSink {
    return this.#sink;
  }

  protected override drain(): void {
    if (this.#sink.isFull) this.#takeRegion();
  }

  #takeRegion(): void {
    const { bytes, release } = this.#sink.take();
    this.#taken.push(Buffer.from(bytes));
    // Whoever reads it later than this reads something else.
    bytes.fill(0xdd);
    release();
  }
}

export interface BatchRewritingOptions {
  /** 0: none. */
  deltaCodec: DeltaCodecId | 0;
  /** A power of two; 0: no references. */
  windowPages: number;
  regionBytes?: number;
  slotCount?: number;
  observes?: boolean;
  untouched?: readonly ZeroRange[];
}

/** As tunnel mode does it, at both ends, without coding and without frames. */
export class BatchRewriting extends Rewriting {
  readonly expansion: Expansion;
  /** All that was sealed, in order; `slot` is not valid any more. */
  readonly batches: SealedBatch[] = [];
  readonly payloads: Buffer[] = [];
  readonly #coder: InlineBatchCoder;
  readonly #sink: BatchSink;
  readonly #taken: Buffer[] = [];

  constructor(cacheSize: CacheSize, options: BatchRewritingOptions) {
    super(cacheSize, options.observes, options.untouched);
    const { memory, kernel } = this.home;
    const { deltaCodec, windowPages, regionBytes, slotCount = 3 } = options;
    this.expansion = new Expansion(regionBytes === undefined ? {} : { regionBytes });
    this.#coder = new InlineBatchCoder(memory, kernel, { slotCount, nowMs: () => 0 });
    this.#sink = new BatchSink(memory, kernel, this.#coder, (_blocks, pageBytes) => {
      const { cache } = this;
      if (cache === undefined)
        return { delta: undefined, window: undefined, windowPages: 0, baselinePages: 0 };
      const window = windowPages === 0 ? undefined : new ContentWindow(kernel, cache, pageBytes, windowPages);
      const delta = makeDeltaCodec(deltaCodec, memory, kernel, pageBytes);
      return { delta, window, windowPages, baselinePages: cache.slotCount };
    });
  }

  /** What is under way is complete as it is. */
  seal(): void {
    this.#sink.seal();
    this.drain();
  }

  /** Everything that was sealed since the last call, expanded. */
  take(): Buffer {
    return Buffer.concat(this.#taken.splice(0));
  }

  protected override sink(): PageSink {
    return this.#sink;
  }

  protected override drain(): void {
    for (let batch = this.#sink.takeSealed(); batch !== undefined; batch = this.#sink.takeSealed()) {
      const place = this.home.memory.bytes(this.#coder.slots[batch.slot]!.rawAddress, batch.rawBytes);
      const payload = Buffer.from(place);
      place.fill(0xdd);
      this.#coder.release(batch.slot);
      this.#sink.slotFreed();
      this.batches.push(batch);
      this.payloads.push(payload);
      this.#taken.push(this.expansion.take(batch.kind, payload));
    }
  }
}
