// SustainedRate on made-up answers: what comes in bunches, in bursts and after pauses.

import { expect, test } from "vitest";
import { SustainedRate } from "./sustained-rate.ts";

class Answers {
  readonly rate = new SustainedRate();
  nowMs = 1000;
  #bytes = 0;

  /** In bunches of so many, each of `bytes`, every `everyMs`. */
  come(count: number, bunch: number, bytes: number, everyMs: number, isFull = true): this {
    for (let i = 0; i < count; i++) {
      this.nowMs += everyMs;
      for (let each = 0; each < bunch; each++) {
        this.#bytes += bytes;
        this.rate.answered(this.#bytes, this.nowMs, isFull);
      }
    }
    return this;
  }

  get known(): number {
    return this.rate.bytesPerSecond(this.nowMs);
  }
}

test("is known once the link has been the limit for a tenth of a second, and for some answers", () => {
  expect(new Answers().come(90, 1, 1000, 1).known).toBe(0);
  expect(new Answers().come(105, 1, 1000, 1).known).toBeCloseTo(1e6, -4);
  // Of a slow link an answer is a tenth of a second.
  expect(new Answers().come(7, 1, 4096, 33).known).toBe(0);
  expect(new Answers().come(10, 1, 4096, 33).known).toBeCloseTo(4096 / 0.033, -1);
});

test("answers that come together, and what a bucket lets through at once, say little", () => {
  // 25 MB/s from the first of a bunch to its last one would be endless.
  expect(new Answers().come(40, 10, 50_000, 20).known / 25e6).toBeLessThan(1.15);
  const bucket = new Answers().come(200, 1, 10_000, 1).come(20, 1, 10_000, 0.1).come(200, 1, 10_000, 1);
  expect(bucket.known / 10e6).toBeLessThan(1.25);
});

test("a link that becomes slower is followed within a second, and one that becomes faster at once", () => {
  const answers = new Answers().come(1000, 1, 10_000, 1);
  expect(answers.come(1100, 1, 1000, 1).known).toBeCloseTo(1e6, -4);
  expect(answers.come(210, 1, 10_000, 1).known).toBeGreaterThan(8e6);
});

test("what a sender makes that has little to send is no rate of the link, and what was known is forgotten", () => {
  const answers = new Answers().come(300, 1, 10_000, 1).come(500, 1, 100, 1, false);
  expect(answers.known).toBeCloseTo(10e6, -5);
  expect(answers.come(600, 1, 100, 1, false).known).toBe(0);
  // A pause in the middle of what would be long enough begins it anew.
  for (let i = 0; i < 20; i++) answers.come(60, 1, 10_000, 1).come(1, 1, 100, 1, false);
  expect(answers.known).toBe(0);
});

test("what is carried for a tenth of a second without filling the link can be carried, and no less", () => {
  const answers = new Answers().come(150, 1, 1000, 1);
  expect(answers.come(220, 1, 5000, 1, false).known).toBeCloseTo(5e6, -4);
  expect(answers.come(220, 1, 500, 1, false).known).toBeCloseTo(5e6, -4);
});

test("an interruption does not count as time in which nothing got across", () => {
  const answers = new Answers().come(150, 1, 10_000, 1);
  answers.rate.interrupt();
  answers.nowMs += 5000;
  expect(answers.come(210, 1, 10_000, 1).known).toBeCloseTo(10e6, -5);
});
