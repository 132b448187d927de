// Which entropy coder, and how hard: the one with which the most guest memory crosses per second (DESIGN §6):
// rate = min(encoders ÷ cost, link ÷ bytes left). A slow link waits for us hardly ever, so the encoders may take
// their time; on a fast one the same effort would be the brake. Learned while running, for each class of batch on
// its own, from what coding has cost and left; pure.

import { assert } from "../base/assert.ts";
import { formatBytesPerSecond } from "../base/units.ts";
import {
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
} from "../codec/entropy/entropy-coder.ts";

interface Method {
  readonly name: string;
  readonly codecId: EntropyCodecId;
  readonly level: number;
  /** What it costs and leaves before it has been tried here, relative to zstd 1 (`npm run bench -- entropy`). */
  readonly costRatio: number;
  readonly sizeRatio: number;
}

const zstd = (level: number, costRatio: number, sizeRatio: number): Method => ({
  name: `zstd ${level}`,
  codecId: ENTROPY_ZSTD,
  level,
  costRatio,
  sizeRatio,
});

/** The cheapest first. */
const METHODS: readonly Method[] = [
  { name: "none", codecId: ENTROPY_NONE, level: 0, costRatio: 0, sizeRatio: Number.NaN },
  { name: "lz4", codecId: ENTROPY_LZ4, level: 1, costRatio: 0.45, sizeRatio: 1.35 },
  zstd(-5, 0.6, 1.25),
  zstd(-1, 0.8, 1.1),
  zstd(1, 1, 1),
  zstd(3, 1.6, 0.96),
  zstd(6, 4.5, 0.92),
  zstd(9, 8, 0.9),
  zstd(12, 16, 0.89),
  zstd(15, 50, 0.87),
  zstd(19, 110, 0.86),
];
const REFERENCE = METHODS.findIndex(({ name }) => name === "zstd 1");

/** What a batch is mostly made of: the two compress differently. */
export type BatchClass = "pages" | "deltas";

/** Before anything was coded: about what zstd 1 does with pages of text on a machine of today. */
const COST_MS_PER_BYTE_INITIAL = 1000 / 300e6;
const SIZE_SHARE_INITIAL = 0.5;
/** Weight of the newest batch in what is known of its method. */
const NEWEST_WEIGHT = 0.15;
/** Encoders are to be busy for at most this share of the time: the rest is for bursts. */
const ENCODER_SHARE_MAX = 0.6;
/** Coding one batch may delay what is behind it by no more than the window allows for queueing. */
const BATCH_MS_MAX = 20;
/** Another method must be better by this much. */
const GAIN_MIN = 1.03;
/** A method is left for a cheaper one at once, for a dearer one only after so many batches. */
const SETTLE_BATCHES = 8;
/** Bytes that look more random than this (kernel.sampledEntropy) are left alone. */
const RANDOM_MIN = 250;

interface Known {
  batches: number;
  costMsPerByte: number;
  sizeShare: number;
}

class ClassKnowledge {
  index = REFERENCE;
  sinceChange = 0;
  readonly known: Known[] = METHODS.map(() => ({ batches: 0, costMsPerByte: 0, sizeShare: 1 }));
  /** zstd 1's, as far as can be told from whatever was used. */
  costMsPerByte = COST_MS_PER_BYTE_INITIAL;
  sizeShare = SIZE_SHARE_INITIAL;

  estimate(index: number): { costMsPerByte: number; sizeShare: number } {
    const method = METHODS[index]!;
    if (method.codecId === ENTROPY_NONE) return { costMsPerByte: 0, sizeShare: 1 };
    const known = this.known[index]!;
    if (known.batches > 0) return known;
    return {
      costMsPerByte: this.costMsPerByte * method.costRatio,
      sizeShare: Math.min(1, this.sizeShare * method.sizeRatio),
    };
  }

  observe(index: number, costMsPerByte: number, sizeShare: number): void {
    const method = METHODS[index]!;
    const known = this.known[index]!;
    const weight = known.batches === 0 ? 1 : NEWEST_WEIGHT;
    known.costMsPerByte += (costMsPerByte - known.costMsPerByte) * weight;
    known.sizeShare += (sizeShare - known.sizeShare) * weight;
    known.batches++;
    this.costMsPerByte += (costMsPerByte / method.costRatio - this.costMsPerByte) * NEWEST_WEIGHT;
    this.sizeShare += (Math.min(1, sizeShare / method.sizeRatio) - this.sizeShare) * NEWEST_WEIGHT;
  }
}

export interface EntropyMethod {
  readonly name: string;
  readonly codecId: EntropyCodecId;
  readonly level: number;
}

export class EntropyChoice {
  readonly #encoders: number;
  readonly #decided: (choice: string, reason: string) => void;
  readonly #classes: Record<BatchClass, ClassKnowledge> = {
    pages: new ClassKnowledge(),
    deltas: new ClassKnowledge(),
  };
  #leavesAlone = false;
  /** Methods that the destination knows; all of them until it has said so. */
  #isAllowed: readonly boolean[] = METHODS.map(() => true);

  /** `encoders`: batches that can be coded at the same time. `decided` hears of every change, with its reason. */
  constructor(encoders: number, decided: (choice: string, reason: string) => void) {
    this.#encoders = encoders;
    this.#decided = decided;
  }

  /** The destination decodes only these. */
  allow(codecIds: readonly number[]): void {
    this.#isAllowed = METHODS.map(({ codecId }) => codecIds.includes(codecId));
    for (const knowledge of Object.values(this.#classes)) {
      if (!this.#isAllowed[knowledge.index]) knowledge.index = this.#isAllowed.indexOf(true);
    }
    assert(this.#isAllowed.includes(true), "the two sides have agreed on a codec");
  }

  /**
   * For a batch of `rawBytes`. `randomness`: kernel.sampledEntropy of its pages, or undefined. The link carries
   * `linkBytesPerSecond`, 0 while that is not known.
   */
  choose(
    batchClass: BatchClass,
    rawBytes: number,
    randomness: number | undefined,
    linkBytesPerSecond: number,
  ): EntropyMethod {
    if (randomness !== undefined && randomness >= RANDOM_MIN && this.#isAllowed[0]) {
      if (!this.#leavesAlone) this.#decided("none", "these pages look random: coding would gain nothing");
      this.#leavesAlone = true;
      return METHODS[0]!;
    }
    if (batchClass === "pages") this.#leavesAlone = false;
    const knowledge = this.#classes[batchClass];
    if (linkBytesPerSecond > 0) this.#reconsider(batchClass, knowledge, rawBytes, linkBytesPerSecond);
    return METHODS[knowledge.index]!;
  }

  /** A batch was coded with the method named; `codedBytes` = `rawBytes` when it did not get smaller. */
  observe(
    batchClass: BatchClass,
    name: string,
    rawBytes: number,
    codedBytes: number,
    encodeMs: number,
  ): void {
    const index = METHODS.findIndex((method) => method.name === name);
    if (METHODS[index]!.codecId === ENTROPY_NONE) return;
    const knowledge = this.#classes[batchClass];
    knowledge.observe(index, encodeMs / rawBytes, codedBytes / rawBytes);
    knowledge.sinceChange++;
  }

  /** Guest bytes (as raw bytes) per second with this method. */
  #rate(knowledge: ClassKnowledge, index: number, linkBytesPerSecond: number): number {
    const { costMsPerByte, sizeShare } = knowledge.estimate(index);
    const byLink = linkBytesPerSecond / sizeShare;
    if (costMsPerByte === 0) return byLink;
    const byEncoders = (ENCODER_SHARE_MAX * this.#encoders * 1000) / costMsPerByte;
    return Math.min(byLink, byEncoders);
  }

  #reconsider(
    batchClass: BatchClass,
    knowledge: ClassKnowledge,
    rawBytes: number,
    linkBytesPerSecond: number,
  ): void {
    const presentRate = this.#rate(knowledge, knowledge.index, linkBytesPerSecond);
    let best = knowledge.index;
    let bestRate = presentRate;
    // One step up at most: what is known of the dearer ones is the less certain the further they are away.
    const last = knowledge.sinceChange < SETTLE_BATCHES ? knowledge.index : knowledge.index + 1;
    for (let index = 0; index <= last && index < METHODS.length; index++) {
      if (!this.#isAllowed[index]) continue;
      const { costMsPerByte } = knowledge.estimate(index);
      if (index > 0 && costMsPerByte * rawBytes > BATCH_MS_MAX && index > REFERENCE) continue;
      const rate = this.#rate(knowledge, index, linkBytesPerSecond);
      if (rate > bestRate * (index === knowledge.index ? 1 : GAIN_MIN)) {
        best = index;
        bestRate = rate;
      }
    }
    const tooLong = knowledge.estimate(knowledge.index).costMsPerByte * rawBytes > BATCH_MS_MAX;
    if (best === knowledge.index && tooLong && knowledge.index > REFERENCE && this.#isAllowed[best - 1])
      best = knowledge.index - 1;
    if (best === knowledge.index) return;
    const before = METHODS[knowledge.index]!.name;
    knowledge.index = best;
    knowledge.sinceChange = 0;
    this.#decided(
      METHODS[best]!.name,
      `${batchClass}: ${formatBytesPerSecond(bestRate)} of memory expected, ${formatBytesPerSecond(presentRate)} ` +
        `with ${before}, on a link of ${formatBytesPerSecond(linkBytesPerSecond)}`,
    );
  }
}
