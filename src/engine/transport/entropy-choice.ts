// Which entropy coder, and how hard: the one with which the most guest memory crosses per second,
// rate = min(encoders ÷ cost, link ÷ bytes left), as far as that is worth the work. A slow link waits for us hardly
// ever, so the encoders may take their time; on a fast one the same effort would be the brake. Learned while running, for
// each class of batch on its own, from what coding has cost and left; pure.

import { assert } from "../../base/assert.ts";
import { formatBytesPerSecond } from "../../base/units.ts";
import {
  ENTROPY_LZ4,
  ENTROPY_NONE,
  ENTROPY_ZSTD,
  type EntropyCodecId,
} from "../../codec/entropy/entropy-coder.ts";

interface Method {
  readonly name: string;
  readonly codecId: EntropyCodecId;
  readonly level: number;
  /** What it costs and leaves, relative to zstd 1, before it has been tried here (`npm run bench -- entropy`). */
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
const LIGHTEST = METHODS.findIndex(({ name }) => name === "lz4");
const REFERENCE = METHODS.findIndex(({ name }) => name === "zstd 1");

/** What a batch is mostly made of: the two compress differently. */
export type BatchClass = "pages" | "deltas";

/** Before anything was coded: about what zstd 1 does with pages of text on a machine of today. */
const COST_MS_PER_BYTE_INITIAL = 1000 / 300e6;
const SIZE_SHARE_INITIAL = 0.5;
/** What a guess counts for beside what was measured, in raw bytes. */
const GUESS_BYTES = 128 * 1024;
/**
 * How long, in time of coding, what was measured of a class is remembered, whichever method was used: a processor that
 * others use as well is given and taken for tens of milliseconds at a time, which says nothing of a coder.
 */
const MEMORY_MS = 300;
/** No batch makes more of it forgotten than this share; a small one in proportion, or a few of them, which is chance, would. */
const FORGOTTEN_SHARE_MAX = 0.1;
const FORGETTING_BYTES = 64 * 1024;
/**
 * A batch that took more than so many times what was expected of it was held up in part by what every method would have
 * been: the processor was somebody else's, or the coder had never run before. What is dearer for good is seen all the
 * same, within a few batches.
 */
const SURPRISE_MAX = 3;
/** Smaller batches say more about what a batch costs at all than about its bytes. */
const OBSERVED_BYTES_MIN = 8 * 1024;
/** Encoders are to be busy for at most this share of the time: the rest is for bursts. */
const ENCODER_SHARE_MAX = 0.8;
/**
 * What keeps all encoders busy takes their cores from guests and hypervisor: it must bring so much more across than what
 * takes none. A coder that works four times as long to leave two in a hundred bytes less does not.
 */
const WORK_PRICE = 0.25;
/** Coding one batch may delay what is behind it by no more than the window allows for queueing. */
const BATCH_MS_MAX = 20;
/** Another method must be better by this much. */
const GAIN_MIN = 1.02;
/** A method is left for a dearer one only after so many batches. */
const SETTLE_BATCHES = 4;
/**
 * The first batches with a method, after another one, say less about it than about the change: what it works with has left
 * the processor's caches. It is not left for a cheaper one before so many, and only the cheaper half of them counts.
 */
const TRIAL_BATCHES = 4;
/** Nor does a trial last longer, however few of them say anything. */
const TRIAL_BATCHES_MAX = 4 * TRIAL_BATCHES;
/** Of what hardly gets smaller all coders leave much the same, which says nothing of what they will leave of other pages. */
const COMPARED_SHARE_MAX = 0.8;
/** What was learned of a coder's size counts for this much less with every batch: the next pages are others. */
const KEPT_RATIO = 0.998;
/**
 * Up to zstd 1 what nobody has measured of late may be better than guessed, by this: a dearer method is given a trial then,
 * since it costs little, and is the only way to find out.
 */
const HOPE = 1.35;
/** A method that was left for a cheaper one is tried again after so many batches, each time after twice as many. */
const RETRY_BATCHES = 32;
const RETRY_BATCHES_MAX = 4096;
/** Bytes that look more random than this (kernel.sampledEntropy) are left alone. */
const RANDOM_MIN = 250;
const LEAVES_ALONE =
  "batches of pages that look random would not get smaller, and are not coded; all others are as before";

/** Sums over the batches of late, the older the less. */
class Measured {
  rawBytes = 0;
  codedBytes = 0;
  encodeMs = 0;

  add(rawBytes: number, codedBytes: number, encodeMs: number): void {
    this.rawBytes += rawBytes;
    this.codedBytes += codedBytes;
    this.encodeMs += encodeMs;
  }

  age(keptShare: number): void {
    this.rawBytes *= keptShare;
    this.codedBytes *= keptShare;
    this.encodeMs *= keptShare;
  }
}

/** Of one batch. */
interface Observation {
  readonly rawBytes: number;
  readonly codedBytes: number;
  readonly encodeMs: number;
}

class ClassKnowledge {
  index = REFERENCE;
  sinceChange = 0;
  /** Count of batches, and by method: from which on it may be chosen again, and how long that was last time. */
  batches = 0;
  readonly notBefore = METHODS.map(() => 0);
  readonly #waited = METHODS.map(() => 0);
  readonly #methods = METHODS.map(() => new Measured());
  /** Everything, as zstd 1 would have done it: what guesses about other methods are made from. */
  readonly #asReference = new Measured();
  /** Relative to zstd 1, as far as it has been seen here. */
  readonly #sizeRatios = METHODS.map(({ sizeRatio }) => sizeRatio);
  /** Of the method in use, until there are enough of them. */
  #trial: Observation[] = [];
  /** The method that was used before it. */
  #left: { readonly index: number; readonly sizeShare: number } | undefined;

  get isOnTrial(): boolean {
    return this.#trial.length < TRIAL_BATCHES && this.sinceChange < TRIAL_BATCHES_MAX;
  }

  /** What it costs and leaves is more than a guess: measured of late, or, of none, not to be measured. */
  isKnown(index: number): boolean {
    return METHODS[index]!.codecId === ENTROPY_NONE || this.#methods[index]!.rawBytes >= GUESS_BYTES;
  }

  costMsPerByte(index: number): number {
    const method = METHODS[index]!;
    if (method.codecId === ENTROPY_NONE) return 0;
    const all = this.#asReference;
    const guess =
      ((all.encodeMs + COST_MS_PER_BYTE_INITIAL * GUESS_BYTES) / (all.rawBytes + GUESS_BYTES)) *
      method.costRatio;
    const { encodeMs, rawBytes } = this.#methods[index]!;
    return (encodeMs + guess * GUESS_BYTES) / (rawBytes + GUESS_BYTES);
  }

  /** Coded bytes per raw byte. */
  sizeShare(index: number): number {
    const method = METHODS[index]!;
    if (method.codecId === ENTROPY_NONE) return 1;
    const all = this.#asReference;
    const guess =
      ((all.codedBytes + SIZE_SHARE_INITIAL * GUESS_BYTES) / (all.rawBytes + GUESS_BYTES)) *
      this.#sizeRatios[index]!;
    const { codedBytes, rawBytes } = this.#methods[index]!;
    return Math.min(1, (codedBytes + guess * GUESS_BYTES) / (rawBytes + GUESS_BYTES));
  }

  observe(index: number, observation: Observation): void {
    const { rawBytes, encodeMs } = observation;
    const keptShare = Math.max(
      (1 - FORGOTTEN_SHARE_MAX) ** Math.min(1, rawBytes / FORGETTING_BYTES),
      Math.exp(-encodeMs / MEMORY_MS),
    );
    for (const measured of this.#methods) measured.age(keptShare);
    this.#asReference.age(keptShare);
    for (const [i, { sizeRatio }] of METHODS.entries())
      this.#sizeRatios[i] = sizeRatio * (this.#sizeRatios[i]! / sizeRatio) ** KEPT_RATIO;
    if (index !== this.index || this.#trial.length >= TRIAL_BATCHES) {
      this.#learn(index, observation);
      return;
    }
    this.#trial.push(observation);
    if (this.#trial.length < TRIAL_BATCHES) return;
    const cheapestFirst = this.#trial.toSorted((a, b) => a.encodeMs / a.rawBytes - b.encodeMs / b.rawBytes);
    const fair = cheapestFirst.slice(0, TRIAL_BATCHES / 2);
    this.#compare(index, fair);
    for (const each of fair) this.#learn(index, each);
  }

  /** What the method on trial leaves of much the same pages as the one before it: a better guess for the next time. */
  #compare(index: number, trial: readonly Observation[]): void {
    const left = this.#left;
    if (left === undefined || left.sizeShare > COMPARED_SHARE_MAX) return;
    const sum = (of: (each: Observation) => number) => trial.reduce((all, each) => all + of(each), 0);
    const ratio = sum((each) => each.codedBytes) / sum((each) => each.rawBytes) / left.sizeShare;
    // zstd 1 is what all others are compared with: what it is like is known of the other one then.
    const [learned, known] = index === REFERENCE ? [left.index, index] : [index, left.index];
    const now = this.#sizeRatios[known]! * (index === REFERENCE ? 1 / ratio : ratio);
    this.#sizeRatios[learned] = Math.sqrt(this.#sizeRatios[learned]! * now);
  }

  #learn(index: number, { rawBytes, codedBytes, encodeMs }: Observation): void {
    const [costRatio, sizeRatio] = [METHODS[index]!.costRatio, this.#sizeRatios[index]!];
    const costMs = Math.min(encodeMs, SURPRISE_MAX * this.costMsPerByte(index) * rawBytes);
    this.#methods[index]!.add(rawBytes, codedBytes, costMs);
    this.#asReference.add(rawBytes, Math.min(rawBytes, codedBytes / sizeRatio), costMs / costRatio);
  }

  /** A batch of its class has gone, whatever became of it. */
  count(): void {
    this.sinceChange++;
    this.batches++;
  }

  setMethod(index: number): void {
    this.#left = this.isKnown(this.index)
      ? { index: this.index, sizeShare: this.sizeShare(this.index) }
      : undefined;
    this.index = index;
    this.sinceChange = 0;
    this.#trial = [];
  }

  /** Because that one is better, by what was measured. */
  moveTo(index: number): void {
    // A guess may turn out to be wrong, and the way back is to be open then.
    if (index < this.index && this.isKnown(index)) {
      // All between the two were passed on the way up: they are no better now.
      for (let left = index + 1; left <= this.index; left++) {
        this.#waited[left] = Math.min(RETRY_BATCHES_MAX, Math.max(RETRY_BATCHES, 2 * this.#waited[left]!));
        this.notBefore[left] = this.batches + this.#waited[left]!;
      }
    }
    this.setMethod(index);
  }
}

/** What a batch has before it. */
export interface Path {
  /** Bytes; 0: nothing is known. */
  readonly linkBytesPerSecond: number;
  /** False: it carries more than that, as far as is known. */
  readonly isLinkKnown: boolean;
  /** Guest memory that the destination takes, whatever it was sent as; infinite: not known. */
  readonly destinationBytesPerSecond: number;
  /** It is the destination that everything waits for. */
  readonly isDestinationLimit: boolean;
  /** Batches wait for an encoder. */
  readonly isBehind: boolean;
}

export interface EntropyMethod {
  readonly name: string;
  readonly codecId: EntropyCodecId;
  readonly level: number;
}

export const NO_ENTROPY: EntropyMethod = METHODS[0]!;

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

  /** Needs no thread, nothing to be loaded, and next to no time for what does not get smaller. */
  get lightest(): EntropyMethod {
    return this.#isAllowed[LIGHTEST] ? METHODS[LIGHTEST]! : NO_ENTROPY;
  }

  /** For a batch of `rawBytes`. `randomness`: kernel.sampledEntropy of its pages, or undefined. */
  choose(
    batchClass: BatchClass,
    rawBytes: number,
    randomness: number | undefined,
    path: Path,
  ): EntropyMethod {
    if (randomness !== undefined && randomness >= RANDOM_MIN && this.#isAllowed[0]) {
      if (!this.#leavesAlone) this.#decided("random pages as they are", LEAVES_ALONE);
      this.#leavesAlone = true;
      return NO_ENTROPY;
    }
    const knowledge = this.#classes[batchClass];
    if (path.linkBytesPerSecond > 0) this.#reconsider(batchClass, knowledge, rawBytes, path);
    if (!path.isLinkKnown) this.#lighten(batchClass, knowledge, path);
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
    const knowledge = this.#classes[batchClass];
    // Those that teach nothing count too: a link that becomes slow again would else find nothing worth a try.
    knowledge.count();
    if (METHODS[index]!.codecId === ENTROPY_NONE || rawBytes < OBSERVED_BYTES_MIN) return;
    knowledge.observe(index, { rawBytes, codedBytes, encodeMs });
  }

  /** Raw bytes per second with this method. */
  #rate(knowledge: ClassKnowledge, index: number, path: Path): number {
    const costMsPerByte = knowledge.costMsPerByte(index);
    const byLink = path.linkBytesPerSecond / knowledge.sizeShare(index);
    const byEncoders =
      costMsPerByte === 0
        ? Number.POSITIVE_INFINITY
        : (ENCODER_SHARE_MAX * this.#encoders * 1000) / costMsPerByte;
    const byDestination = path.isDestinationLimit ? path.destinationBytesPerSecond : Number.POSITIVE_INFINITY;
    return Math.min(byLink, byEncoders, byDestination);
  }

  /** `#rate`, less what the work for it is worth. */
  #worth(knowledge: ClassKnowledge, index: number, path: Path): number {
    const rate = this.#rate(knowledge, index, path);
    const busyShare = (rate * knowledge.costMsPerByte(index)) / (1000 * this.#encoders);
    return rate * (1 - WORK_PRICE * busyShare);
  }

  /** Whatever the link carries, it carries more than this: the next cheaper method shows how much more. */
  #lighten(batchClass: BatchClass, knowledge: ClassKnowledge, path: Path): void {
    if (!path.isBehind && !path.isDestinationLimit) return;
    if (knowledge.sinceChange < SETTLE_BATCHES || knowledge.index === 0) return;
    const cheaper = this.#isAllowed.lastIndexOf(true, knowledge.index - 1);
    if (cheaper === -1) return;
    const before = METHODS[knowledge.index]!.name;
    knowledge.setMethod(cheaper);
    const limit = path.isBehind ? "the encoders are" : "the destination is";
    this.#decided(METHODS[cheaper]!.name, `${batchClass}: ${limit} the limit with ${before}, not the link`);
  }

  #reconsider(batchClass: BatchClass, knowledge: ClassKnowledge, rawBytes: number, path: Path): void {
    const { linkBytesPerSecond, isLinkKnown } = path;
    const present = knowledge.index;
    let best = present;
    let bestWorth = this.#worth(knowledge, present, path);
    let atBest = "";
    // One step up at most, where nobody knows what to expect: the further away the less.
    const above = Math.max(REFERENCE, present + 1);
    // A link that may carry more than it has carried so far is no reason for anything dearer.
    const mayRise = isLinkKnown && knowledge.sinceChange >= SETTLE_BATCHES && knowledge.isKnown(present);
    const last = mayRise ? above : present;
    const first = knowledge.isOnTrial ? present : 0;
    for (let index = first; index <= last && index < METHODS.length; index++) {
      if (index === present || !this.#isAllowed[index] || knowledge.batches < knowledge.notBefore[index]!)
        continue;
      if (index > REFERENCE && knowledge.costMsPerByte(index) * rawBytes > BATCH_MS_MAX) continue;
      const isHopeful =
        index > present && index <= REFERENCE && !knowledge.isKnown(index) && !path.isDestinationLimit;
      const worth = (isHopeful ? HOPE : 1) * this.#worth(knowledge, index, path);
      if (worth > bestWorth * GAIN_MIN) {
        best = index;
        bestWorth = worth;
        atBest = isHopeful ? "at best " : "";
      }
    }
    const rateOf = (index: number) => this.#rate(knowledge, index, path);
    // What is made smaller than it has to be for a destination that takes no more costs both ends work for nothing.
    if (path.isDestinationLimit && isLinkKnown)
      for (let index = first; index < best; index++)
        if (this.#isAllowed[index] && rateOf(index) * GAIN_MIN >= rateOf(best)) best = index;
    const tooLong = knowledge.costMsPerByte(present) * rawBytes > BATCH_MS_MAX;
    if (best === present && tooLong && present > REFERENCE && this.#isAllowed[present - 1])
      best = present - 1;
    if (best === present) return;
    const [before, presentRate] = [METHODS[present]!.name, rateOf(present)];
    const bestRate = (atBest === "" ? 1 : HOPE) * rateOf(best);
    // What was passed on the way up is no better now, if the link is what it was taken for.
    if (isLinkKnown) knowledge.moveTo(best);
    else knowledge.setMethod(best);
    this.#decided(
      METHODS[best]!.name,
      `${batchClass}: ${atBest}${formatBytesPerSecond(bestRate)} of memory expected, ${formatBytesPerSecond(presentRate)} ` +
        `with ${before}, on a link of ${isLinkKnown ? "" : "at least "}${formatBytesPerSecond(linkBytesPerSecond)}` +
        (path.isDestinationLimit ? ", and the destination takes no more" : "") +
        (best < present && bestRate < presentRate ? ", for less work" : ""),
    );
  }
}
