// When to leave pages alone altogether: on a link that is faster than we can look at pages, the fastest
// is to carry them on as they are. Pure.
//
// It begins so: what a link carries shows only when it is filled, and a look at each page of the first pass pays only
// later, when the page is dirtied again. As soon as the link turns out to be slow, pages are looked at; on a fast one as soon
// as a pass is not much shorter than the one before it: there what is looked at once more may be sent as less, while a guest
// that writes little is moved before that. What lies between the two is decided by whether the machine has a core to
// spare for it: where it has none, less gets across for what is looked at, since the hypervisor and whatever else runs there
// go without. Then bypass is tried for a moment when we are the brake, kept if more gets across, and left as soon as the
// link is the limit.

import { formatBytesPerSecond } from "../../base/units.ts";

/** Counters are cumulative. */
export interface Progress {
  nowMs: number;
  /** Bytes that the hypervisor has handed over. */
  handedOverBytes: number;
  /** Time that we have worked on them. */
  busyMs: number;
  /** 0: every page comes for the first time. */
  pass: number;
  /** False: it has carried whatever was sent, so that it carries at least `linkBytesPerSecond`. */
  isLinkKnown: boolean;
  linkBytesPerSecond: number;
  /** It is the destination that everything waits for: `isLinkKnown` is false then, too. */
  isDestinationLimit: boolean;
}

/**
 * A link that carries less leaves time to look at each page and to keep it: that takes about a third of a core at this
 * rate, most of it for memory that is touched for the first time. More than Gigabit Ethernet.
 */
export const FAST_BYTES_PER_SECOND = 160e6;
/** One that carries less than this is slow when it has been seen to for so long, since both ends have to warm up first; */
const SLOW_BYTES_PER_SECOND = 80e6;
/** one that carries less than this, at once. */
const SLOW_AT_ONCE_BYTES_PER_SECOND = 20e6;
const SLOW_FOR_MS = 400;
/**
 * Any other has so long to show that it is fast, however long its round trip is, and whatever else the machines at both
 * ends are busy with.
 */
const OPENING_BYTES_MAX = 32 * 1024 * 1024;
/**
 * Cores that must be idle for a look at pages over a link between the two. The look takes a third of one; once it is
 * taken, pages are coded as well, which at such rates takes the rest.
 */
const IDLE_CORES_MIN = 1;
/** How long that is measured: clocks of operating systems tick a hundred times a second. */
const IDLE_MEASURE_MS = 200;
/** A pass over a fast link is not looked at as long as it is no longer than this share of the one before. */
const SHORTER_SHARE_MAX = 0.25;
/** Worked for more than this share of the time: we are the brake. For less than the other: the link is. */
const BRAKE_SHARE_MIN = 0.85;
const LINK_SHARE_MAX = 0.5;
/** How long a rate is measured, with pages looked at and without. */
const MEASURE_MS = 400;
/** More must get across by this much. */
const GAIN_MIN = 1.15;
/** Between two tries, doubled with each that gained nothing: what bypass carries on the cache forgets. */
const RETRY_MS = 2000;
const RETRY_MS_MAX = 60_000;

export class BypassJudge {
  readonly #decided: (choice: string, reason: string) => void;
  #state: "opening" | "looking" | "trying" | "bypassing" = "opening";
  #since: Progress | undefined;
  /** Bytes per second with pages looked at, before the try. */
  #rateBefore = 0;
  #retryMs = RETRY_MS;
  #notBeforeMs = 0;
  #slowSinceMs: number | undefined;
  readonly #idleCoreMs: (() => number) | undefined;
  /** Since when the machine's idle time is measured, and what it was then. */
  #idleFrom: { nowMs: number; idleCoreMs: number } | undefined;
  /** Cores that were idle, as last measured. */
  #idleCores: number | undefined;
  #saidWhyNot = false;
  /** The pass under way, what had been handed over when it began, and how much all of the one before was. */
  #pass = 0;
  #passFromBytes = 0;
  #passBeforeBytes = Number.POSITIVE_INFINITY;

  /**
   * `decided` hears of every change, with its reason. `idleCoreMs`: time for which cores of this machine have had
   * nothing to do, of all of them together and from some moment on; undefined: nobody knows, and there are enough.
   */
  constructor(decided: (choice: string, reason: string) => void, idleCoreMs?: () => number) {
    this.#decided = decided;
    this.#idleCoreMs = idleCoreMs;
  }

  /** Whether pages are to be left alone from here on. */
  get bypasses(): boolean {
    return this.#state !== "looking";
  }

  /** To be asked several times a second. @returns `bypasses` */
  judge(progress: Progress): boolean {
    if (this.#state === "opening") this.#open(progress);
    this.#since ??= progress;
    const elapsedMs = progress.nowMs - this.#since.nowMs;
    if (elapsedMs >= MEASURE_MS) {
      const bytesPerSecond = ((progress.handedOverBytes - this.#since.handedOverBytes) / elapsedMs) * 1000;
      const busyShare = (progress.busyMs - this.#since.busyMs) / elapsedMs;
      this.#since = progress;
      this.#measured(bytesPerSecond, busyShare, progress);
    }
    return this.bypasses;
  }

  #open(progress: Progress): void {
    const { nowMs, pass, isLinkKnown, linkBytesPerSecond, handedOverBytes, isDestinationLimit } = progress;
    this.#measureIdle(nowMs);
    this.#countPass(pass, handedOverBytes);
    const carries = `the link carries ${formatBytesPerSecond(linkBytesPerSecond)}`;
    const isFast = linkBytesPerSecond >= FAST_BYTES_PER_SECOND;
    if (pass > 0 && !isFast && !isDestinationLimit) {
      this.#look(`the first pass is over, in which ${carries}`);
      return;
    }
    if (handedOverBytes - this.#passFromBytes > SHORTER_SHARE_MAX * this.#passBeforeBytes) {
      this.#look(`pass ${pass} over memory is not much shorter than the one before it, and ${carries}`);
      return;
    }
    if (isFast) return;
    if (!isLinkKnown || linkBytesPerSecond >= SLOW_BYTES_PER_SECOND) this.#slowSinceMs = undefined;
    else {
      this.#slowSinceMs ??= nowMs;
      const forMs = linkBytesPerSecond < SLOW_AT_ONCE_BYTES_PER_SECOND ? 0 : SLOW_FOR_MS;
      if (nowMs - this.#slowSinceMs >= forMs) this.#look(carries);
      return;
    }
    if (handedOverBytes < OPENING_BYTES_MAX) return;
    // It would take no more for it.
    if (isDestinationLimit) this.#leaveAlone("it is the destination that takes no more, and not the link");
    else if (this.#hasCoreToSpare()) this.#look(carries);
    else if (this.#idleCores !== undefined)
      this.#leaveAlone(`${carries}, and no core is idle here to look at pages with`);
  }

  #countPass(pass: number, handedOverBytes: number): void {
    if (pass === this.#pass) return;
    this.#pass = pass;
    this.#passBeforeBytes = handedOverBytes - this.#passFromBytes;
    this.#passFromBytes = handedOverBytes;
  }

  #measureIdle(nowMs: number): void {
    if (this.#idleCoreMs === undefined) return;
    const elapsedMs = nowMs - (this.#idleFrom?.nowMs ?? Number.NEGATIVE_INFINITY);
    if (elapsedMs < IDLE_MEASURE_MS) return;
    const idleCoreMs = this.#idleCoreMs();
    if (this.#idleFrom !== undefined) this.#idleCores = (idleCoreMs - this.#idleFrom.idleCoreMs) / elapsedMs;
    this.#idleFrom = { nowMs, idleCoreMs };
  }

  #hasCoreToSpare(): boolean {
    if (this.#idleCoreMs === undefined) return true;
    return this.#idleCores !== undefined && this.#idleCores >= IDLE_CORES_MIN;
  }

  /** Once said: it may change with every measurement. */
  #leaveAlone(reason: string): void {
    if (this.#saidWhyNot) return;
    this.#saidWhyNot = true;
    this.#decided("bypass", reason);
  }

  #measured(bytesPerSecond: number, busyShare: number, { nowMs, isDestinationLimit }: Progress): void {
    switch (this.#state) {
      case "opening":
        return;
      case "looking":
        if (busyShare < BRAKE_SHARE_MIN || nowMs < this.#notBeforeMs) return;
        this.#rateBefore = bytesPerSecond;
        this.#state = "trying";
        this.#decided(
          "bypass",
          `looking at pages is the brake, at ${formatBytesPerSecond(bytesPerSecond)}: tried`,
        );
        return;
      case "trying":
        if (bytesPerSecond > this.#rateBefore * GAIN_MIN) {
          this.#state = "bypassing";
          this.#retryMs = RETRY_MS;
          this.#decided("bypass", `${this.#compare(bytesPerSecond)}: kept`);
          return;
        }
        this.#leave(nowMs, `${this.#compare(bytesPerSecond)}: no gain`);
        return;
      case "bypassing":
        if (busyShare < LINK_SHARE_MAX && !isDestinationLimit)
          this.#leave(nowMs, "the link has become the limit");
        return;
    }
  }

  #compare(bytesPerSecond: number): string {
    return `${formatBytesPerSecond(bytesPerSecond)} against ${formatBytesPerSecond(this.#rateBefore)} before`;
  }

  #leave(nowMs: number, reason: string): void {
    this.#notBeforeMs = nowMs + this.#retryMs;
    this.#retryMs = Math.min(RETRY_MS_MAX, 2 * this.#retryMs);
    this.#look(reason);
  }

  #look(reason: string): void {
    this.#state = "looking";
    this.#since = undefined;
    this.#decided("look at pages", reason);
  }
}
