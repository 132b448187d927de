// When it is worth trying whether the link takes what the guest would have to wait for. A guest that sends little never shows
// what a link could carry: one that was taken for slow, as by a machine that was busy for a while, would seem so for as long as
// the guest sends little, and a goal that could be kept would seem out of reach. So as many bytes as would have to cross are sent
// that stand for nothing, and what that took is known for certain, whatever else the link does. Pure.

import { REHEARSED_BYTES_MAX } from "../transport/source-link.ts";
import { estimateDowntimeMs, type SwitchoverFigures, wireBytesOf } from "./switchover.ts";

/** The first one comes so long after the first time that the goal was missed; each that does not help doubles it. */
const EVERY_MS_MIN = 1000;
const EVERY_MS_MAX = 30_000;
/** The link is to be kept busy with it for no more than one part in so many of the time. */
const LOAD_RATIO = 10;
/** It must not keep pages waiting for longer than this, if the link is as slow as it seems. */
const TAKES_MS_MAX = 2000;
/** The guest dirties pages until the last moment: more than what is left now. */
const MARGIN = 1.5;

/** If the link is as slow as it seems. */
function takesMs(bytes: number, { linkBytesPerSecond }: SwitchoverFigures): number {
  return (bytes / linkBytesPerSecond) * 1000;
}

export class Rehearsals {
  readonly #goalMs: number;
  #everyMs = EVERY_MS_MIN;
  #notBeforeMs: number | undefined;

  constructor(goalMs: number) {
    this.#goalMs = goalMs;
  }

  /** @returns how many bytes are to be sent now; undefined: none */
  due(figures: SwitchoverFigures, nowMs: number): number | undefined {
    const { linkBytesPerSecond, proof } = figures;
    if (linkBytesPerSecond === 0) return undefined;
    if (estimateDowntimeMs(figures) <= this.#goalMs) {
      if (proof !== undefined) this.#everyMs = EVERY_MS_MIN;
      return undefined;
    }
    this.#notBeforeMs ??= nowMs + EVERY_MS_MIN;
    if (nowMs < this.#notBeforeMs || !this.#mayHelp(figures)) return undefined;
    const bytes = Math.ceil(wireBytesOf(figures) * MARGIN);
    return takesMs(bytes, figures) > TAKES_MS_MAX || bytes > REHEARSED_BYTES_MAX ? undefined : bytes;
  }

  /** It was sent. Each time that it did not help the next one comes later. */
  sent(bytes: number, figures: SwitchoverFigures, nowMs: number): void {
    this.#notBeforeMs = nowMs + Math.max(this.#everyMs, LOAD_RATIO * takesMs(bytes, figures));
    this.#everyMs = Math.min(EVERY_MS_MAX, this.#everyMs * 2);
  }

  /** The goal would be met if the link took no time. */
  #mayHelp(figures: SwitchoverFigures): boolean {
    return estimateDowntimeMs({ ...figures, linkBytesPerSecond: 0, proof: undefined }) <= this.#goalMs;
  }
}
