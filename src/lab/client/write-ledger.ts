// Which writes a store has been sent and which it has acknowledged, key by key, and what that makes of a value that is
// read back: it must be at least as new as what was acknowledged, no newer than what was sent, and whole.

import { versionOf } from "./redis-values.ts";

export type Finding = "good" | "lost" | "damaged";

export class WriteLedger {
  readonly #valueBytes: number;
  readonly #sent: Uint32Array;
  readonly #acknowledged: Uint32Array;

  /** All keys hold version 0 to begin with. */
  constructor(keyCount: number, valueBytes: number) {
    this.#valueBytes = valueBytes;
    this.#sent = new Uint32Array(keyCount);
    this.#acknowledged = new Uint32Array(keyCount);
  }

  /** The version that is to be written next. */
  send(key: number): number {
    return ++this.#sent[key]!;
  }

  acknowledge(key: number, version: number): void {
    this.#acknowledged[key] = Math.max(this.#acknowledged[key]!, version);
  }

  /** `stored` is null for a key that is not there. */
  judge(key: number, stored: string | null): Finding {
    if (stored === null) return "lost";
    const version = versionOf(stored, key, this.#valueBytes);
    if (version === undefined || version > this.#sent[key]!) return "damaged";
    return version < this.#acknowledged[key]! ? "lost" : "good";
  }

  /** At most `countMax` of the keys with an acknowledged write, spread evenly over all of them. */
  writtenKeys(countMax: number): number[] {
    const written: number[] = [];
    for (let key = 0; key < this.#acknowledged.length; key++) {
      if (this.#acknowledged[key]! > 0) written.push(key);
    }
    const step = Math.max(1, written.length / countMax);
    const sample: number[] = [];
    for (let index = 0; index < written.length; index += step) sample.push(written[Math.floor(index)]!);
    return sample;
  }
}
