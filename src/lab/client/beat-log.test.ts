import { describe, expect, it } from "vitest";
import { BeatLog } from "./beat-log.ts";

const PERIOD_MS = 2;
const WORK_NS = 20_000;

function beat(counter: number, due: number, spentNs: number): Uint8Array {
  const datagram = Buffer.alloc(32);
  for (const [i, value] of [counter, counter * PERIOD_MS * 1e6, due, spentNs].entries()) {
    datagram.writeBigUInt64BE(BigInt(value), i * 8);
  }
  return datagram;
}

/** A guest with a beat each 2 ms, from 0 ms on. */
class Guest {
  readonly log: BeatLog;
  #counter = 0;
  #due = 0;
  #spentNs = 0;
  ms = 0;

  constructor(beatsMax?: number) {
    this.log = new BeatLog(beatsMax);
  }

  beats(count: number, { dueEach = 1, workNs = WORK_NS, isLost = false } = {}): void {
    for (let i = 0; i < count; i++) {
      this.ms += PERIOD_MS * dueEach;
      this.#due += dueEach;
      if (!isLost) this.log.add(beat(this.#counter, this.#due, this.#spentNs), this.ms);
      this.#counter++;
      this.#spentNs += workNs;
    }
  }
}

describe("the view of a guest's heartbeat", () => {
  it("has the longest gap since the migration began, and not one from before", () => {
    const guest = new Guest();
    guest.beats(500);
    guest.ms += 900;
    guest.beats(500);
    const beganMs = guest.ms + 1;
    guest.beats(500);
    guest.ms += 300;
    guest.beats(500);
    const { metrics, failures } = guest.log.view({ beganMs, endedMs: guest.ms, finishedMs: guest.ms });
    expect(metrics.heartbeatGapMs).toBe(300 + PERIOD_MS);
    expect(metrics.heartbeatGapMsBefore).toBe(900 + PERIOD_MS);
    expect(metrics.heartbeatsLost).toBe(0);
    expect(metrics.slowdownShare).toBeCloseTo(0);
    expect(failures).toEqual([]);
  });

  it("has a gap that ends only after the mover took the migration for ended", () => {
    const guest = new Guest();
    guest.beats(100);
    const beganMs = guest.ms + 1;
    guest.beats(100);
    const endedMs = guest.ms + 50;
    guest.ms += 200;
    guest.beats(100);
    const { metrics } = guest.log.view({ beganMs, endedMs, finishedMs: guest.ms });
    expect(metrics.heartbeatGapMs).toBe(200 + PERIOD_MS);
  });

  it("counts beats that were sent and have not arrived", () => {
    const guest = new Guest();
    guest.beats(100);
    const beganMs = guest.ms + 1;
    guest.beats(7, { isLost: true });
    guest.beats(100);
    const times = { beganMs, endedMs: guest.ms, finishedMs: guest.ms };
    expect(guest.log.view(times).metrics.heartbeatsLost).toBe(7);
  });

  it("takes beats that came too late, and work that takes longer, for slowness", () => {
    for (const [slow, share] of [
      [{ dueEach: 2 }, 0.5],
      [{ workNs: WORK_NS * 4 }, 0.75],
      [{ dueEach: 2, workNs: WORK_NS * 2 }, 0.75],
    ] as const) {
      const guest = new Guest();
      guest.beats(1000);
      const beganMs = guest.ms + 1;
      guest.beats(1000, slow);
      const times = { beganMs, endedMs: guest.ms, finishedMs: guest.ms };
      expect(guest.log.view(times).metrics.slowdownShare).toBeCloseTo(share, 1);
    }
  });

  it("of a guest that is silent to the end is a failure, with no gap to show", () => {
    const guest = new Guest();
    guest.beats(100);
    const beganMs = guest.ms + 1;
    guest.beats(100);
    const endedMs = guest.ms + 100;
    const { metrics, failures } = guest.log.view({ beganMs, endedMs, finishedMs: guest.ms + 5000 });
    expect(metrics.heartbeatGapMs).toBeUndefined();
    expect(failures).toEqual(["no heartbeat in the last 5000 ms"]);
  });

  it("of a guest that never was heard of is a failure", () => {
    const { metrics, failures } = new BeatLog().view({ beganMs: 0, endedMs: 1, finishedMs: 2 });
    expect(metrics).toEqual({});
    expect(failures).toEqual(["no heartbeat of the guest"]);
  });

  it("leaves out what is no heartbeat and what was overtaken", () => {
    const log = new BeatLog();
    log.add(beat(5, 5, 0), 1);
    log.add(new Uint8Array(31), 2);
    log.add(beat(4, 4, 0), 3);
    expect(log.count).toBe(1);
  });

  it("goes on when it is full, and knows of all that came before", () => {
    const guest = new Guest(400);
    guest.beats(100);
    guest.ms += 50;
    guest.beats(900);
    const beganMs = guest.ms + 1;
    guest.beats(301);
    guest.beats(7, { isLost: true });
    guest.ms += 70;
    guest.beats(2000);
    const { metrics } = guest.log.view({ beganMs, endedMs: guest.ms, finishedMs: guest.ms });
    expect(guest.log.count).toBeLessThanOrEqual(400);
    expect(metrics.heartbeatsLost).toBe(7);
    expect(metrics.heartbeatGapMs).toBe(70 + 8 * PERIOD_MS);
    expect(metrics.heartbeatGapMsBefore).toBe(50 + PERIOD_MS);
    expect(metrics.slowdownShare).toBeCloseTo(0);
  });

  it("keeps its series short, however long it listened", () => {
    const guest = new Guest();
    guest.beats(150_000);
    const times = { beganMs: 1000, endedMs: guest.ms, finishedMs: guest.ms };
    for (const { points } of guest.log.view(times).series) {
      expect(points.length).toBeGreaterThan(100);
      expect(points.length).toBeLessThanOrEqual(202);
    }
  });
});
