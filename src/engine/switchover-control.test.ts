// The moment of switchover on virtual time, against a hypervisor that counts as QEMU does: it looks for dirty
// pages only when little is left of those it knows, goes by its limit up to 100 ms late, and reports a forecast.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { VirtualClock } from "../base/clock.ts";
import type { RecordEntry } from "../record/schema.ts";
import { estimateDowntimeMs } from "./switchover.ts";
import { SwitchoverControl } from "./switchover-control.ts";

const LINK_BYTES_PER_SECOND = 12.5e6;
/** How often the hypervisor looks at its limit. */
const LIMIT_EVERY_MS = 100;

interface Guest {
  dirtyBytesPerSecond: number;
  workingSetBytes: number;
  /** What a byte of guest RAM costs on the link, after the first pass. */
  ratio: number;
  handoverBytesPerSecond: number;
}

const GUEST: Guest = {
  dirtyBytesPerSecond: 30e6,
  workingSetBytes: 128e6,
  ratio: 0.05,
  handoverBytesPerSecond: 200e6,
};

interface SceneOptions {
  guest?: Partial<Guest>;
  goalMs?: number;
  switchoverControl?: "ack" | "limit";
  awaitsDestinationAck?: boolean;
  limitFails?: boolean;
}

class Scene {
  readonly clock = new VirtualClock();
  readonly control: SwitchoverControl;
  readonly recorded: RecordEntry[] = [];
  readonly limits: number[] = [];
  readonly guest: Guest;
  releases = 0;
  /** Answers of the link stay out from now on. */
  stalledSinceMs: number | undefined;
  iteration = 0;
  remainingBytes = 256e6;
  /** Where it was dirty when the guest was stopped. */
  leftBytes: number | undefined;
  #unseenBytes = 0;
  /** What the last iteration says of the guest, and when it began. */
  #dirtyBytesPerMs = 0;
  #iterationMs = 0;
  #handedOverBytes = 0;
  #wireBytes = 0;
  #handoverMs = 0;
  #limitBytes = 0;
  #limitInForceBytes = 0;
  #lookMs = 0;

  constructor(options: SceneOptions = {}) {
    this.guest = { ...GUEST, ...options.guest };
    this.control = new SwitchoverControl({
      vm: {
        switchoverControl: options.switchoverControl ?? "ack",
        awaitsDestinationAck: options.awaitsDestinationAck ?? false,
        limitSwitchover: async (bytes) => {
          if (options.limitFails === true) throw new Error("no such parameter");
          this.limits.push(bytes);
          this.#limitBytes = bytes;
        },
      },
      mode: "direct",
      downtimeMsMax: options.goalMs ?? 300,
      clock: this.clock,
      record: { add: (entry) => this.recorded.push(entry) },
      release: () => this.releases++,
    });
  }

  get decisions(): string[] {
    return this.recorded.flatMap((entry) => (entry.type === "decision" ? [entry.choice] : []));
  }

  run(ms: number, isOver: (scene: Scene) => boolean = (scene) => scene.leftBytes !== undefined): this {
    for (const endMs = this.clock.nowMs() + ms; this.clock.nowMs() < endMs && !isOver(this); ) {
      this.#iterate();
      this.clock.advance(1);
      if (this.clock.nowMs() >= this.#lookMs) this.look();
    }
    return this;
  }

  look(mayDecide = true): void {
    const { iteration } = this;
    const expectedBytes = this.#dirtyBytesPerMs * (this.clock.nowMs() - this.#iterationMs);
    const remainingBytes = this.remainingBytes + expectedBytes;
    this.control.look({ iteration, remainingBytes }, this.progress, mayDecide);
    this.#lookMs = this.clock.nowMs() + this.control.lookAgainMs;
  }

  get progress() {
    const stalledMs = this.stalledSinceMs === undefined ? 0 : this.clock.nowMs() - this.stalledSinceMs;
    return {
      handedOverBytes: this.#handedOverBytes,
      handoverMs: this.#handoverMs,
      link: {
        wireBytes: this.#wireBytes,
        inFlightBytes: 250_000,
        windowBytes: 250_000,
        linkBytesPerSecond: LINK_BYTES_PER_SECOND,
        roundTripMs: 1 + stalledMs,
      },
    };
  }

  /** How long the guest stands still for what was really left. */
  get downtimeMs(): number {
    const { ratio, handoverBytesPerSecond } = this.guest;
    return estimateDowntimeMs({
      remainingBytes: this.leftBytes!,
      wireBytesPerGuestByte: ratio,
      handoverBytesPerSecond,
      queuedBytes: 250_000,
      linkBytesPerSecond: LINK_BYTES_PER_SECOND,
      roundTripMs: 1,
      roundTrips: 0.5,
      deviceStateBytes: 128 * 1024,
    });
  }

  /** A millisecond of it. */
  #iterate(): void {
    const { dirtyBytesPerSecond, workingSetBytes, ratio, handoverBytesPerSecond } = this.guest;
    const wireRatio = this.iteration === 0 ? 1 : ratio;
    const bytesPerSecond = Math.min(handoverBytesPerSecond, LINK_BYTES_PER_SECOND / wireRatio);
    const bytes = Math.min(this.remainingBytes, bytesPerSecond / 1000);
    this.remainingBytes -= bytes;
    this.#handedOverBytes += bytes;
    this.#wireBytes += bytes * wireRatio;
    // What the link makes it wait for is not time that handing over takes.
    this.#handoverMs += (bytes / handoverBytesPerSecond) * 1000;
    this.#unseenBytes = Math.min(workingSetBytes, this.#unseenBytes + dirtyBytesPerSecond / 1000);
    if (this.clock.nowMs() % LIMIT_EVERY_MS === 0) this.#limitInForceBytes = this.#limitBytes;
    if (this.remainingBytes > this.#limitInForceBytes) return;
    this.remainingBytes = Math.min(workingSetBytes, this.remainingBytes + this.#unseenBytes);
    this.#unseenBytes = 0;
    this.iteration++;
    const nowMs = this.clock.nowMs();
    this.#dirtyBytesPerMs = this.remainingBytes / Math.max(1, nowMs - this.#iterationMs);
    this.#iterationMs = nowMs;
    if (this.releases > 0 && this.remainingBytes <= this.#limitInForceBytes) {
      this.leftBytes = this.remainingBytes;
    }
  }
}

describe("a hypervisor that waits for an acknowledgement", () => {
  test("stops the guest within the goal, however much it had not seen when it last said what is left", () => {
    const guests = fc.record({
      dirtyBytesPerSecond: fc.double({ min: 1e5, max: 100e6, noNaN: true }),
      workingSetBytes: fc.double({ min: 1e6, max: 512e6, noNaN: true }),
      ratio: fc.double({ min: 0.005, max: 0.05, noNaN: true }),
      handoverBytesPerSecond: fc.double({ min: 150e6, max: 1e9, noNaN: true }),
    });
    fc.assert(
      fc.property(guests, fc.constantFrom(100, 300, 1000), (guest, goalMs) => {
        const scene = new Scene({ guest, goalMs }).run(120_000);
        expect(scene.leftBytes).toBeDefined();
        expect(scene.downtimeMs).toBeLessThanOrEqual(goalMs);
        expect(scene.releases).toBe(1);
      }),
      { numRuns: 100 },
    );
  });

  test("stops the guest well below the goal where iterating gets there soon", () => {
    const scene = new Scene().run(60_000);
    expect(scene.downtimeMs).toBeLessThan(120);
    const firstPassMs = (256e6 / LINK_BYTES_PER_SECOND) * 1000;
    // The working set as deltas takes 0.6 s by itself.
    expect(scene.clock.nowMs()).toBeLessThan(firstPassMs + 1100);
  });

  test("holds the guest during the first pass, and while the goal is out of reach", () => {
    const scene = new Scene({ guest: { dirtyBytesPerSecond: 1e9, ratio: 0.5 } });
    scene.run(20_000);
    expect([scene.iteration, scene.limits.length]).toEqual([0, 0]);
    scene.run(60_000);
    expect(scene.iteration).toBeGreaterThan(0);
    expect(scene.releases).toBe(0);
    expect(scene.decisions).toEqual(["wait"]);
  });

  test("keeps its limit at what is affordable from the end of the first pass on, not only from the release", () => {
    const scene = new Scene().run(60_000, (scene) => scene.releases > 0);
    expect(scene.limits.length).toBeGreaterThan(3);
    expect(scene.limits.at(-1)).toBeGreaterThan(1e6);
  });

  test("allows more step by step, each with its reason, when it goes on finding too much", () => {
    const scene = new Scene().run(60_000, (scene) => scene.releases > 0);
    // Nearly as fast as it is handed over: what is left becomes less only slowly.
    scene.guest.dirtyBytesPerSecond = 190e6;
    scene.run(3000);
    expect(scene.downtimeMs).toBeLessThanOrEqual(300);
    expect(scene.downtimeMs).toBeGreaterThan(120);
    expect(scene.decisions.slice(0, 2)).toEqual(["wait", "now"]);
    expect(scene.decisions.slice(2).length).toBeGreaterThan(0);
    expect(scene.decisions.slice(2).every((choice) => choice === "allow more")).toBe(true);
  });

  test("does not keep a guest for ever that has become too busy since the release", () => {
    const scene = new Scene().run(60_000, (scene) => scene.releases > 0);
    Object.assign(scene.guest, { dirtyBytesPerSecond: 300e6, ratio: 0.1, handoverBytesPerSecond: 1e9 });
    scene.run(4000);
    expect(scene.leftBytes).toBeUndefined();
    scene.run(30_000);
    expect(scene.leftBytes).toBeDefined();
    expect(scene.recorded.at(-1)).toMatchObject({ type: "decision", choice: "allow more" });
  });

  test("stops no guest for a link that stands still", () => {
    const scene = new Scene().run(60_000, (scene) => scene.iteration > 0);
    scene.stalledSinceMs = scene.clock.nowMs();
    scene.run(25_000);
    expect([scene.releases, scene.limits.at(-1)]).toEqual([0, 0]);
  });

  test("is asked ever more often towards the end of the first pass, then as often as its answer may decide", () => {
    const scene = new Scene();
    const everyMs: number[] = [];
    scene.run(60_000, () => {
      if (everyMs.at(-1) !== scene.control.lookAgainMs) everyMs.push(scene.control.lookAgainMs);
      return scene.iteration > 0;
    });
    expect(everyMs[0]).toBe(250);
    expect(everyMs.at(-1)).toBe(20);
    expect(everyMs).toEqual([...everyMs].sort((a, b) => b - a));
    scene.run(60_000, () => scene.releases > 0);
    expect(scene.control.lookAgainMs).toBe(20);
    scene.look(false);
    expect(scene.control.lookAgainMs).toBe(250);
  });

  test("is asked more rarely while the goal is far away", () => {
    const scene = new Scene({ guest: { dirtyBytesPerSecond: 1e9, ratio: 0.9 } }).run(60_000);
    expect(scene.control.lookAgainMs).toBe(50);
  });

  test("gets no acknowledgement before the destination's own has come, where that is asked for", () => {
    const scene = new Scene({ awaitsDestinationAck: true }).run(60_000, (scene) => scene.iteration > 0);
    scene.run(3000);
    expect(scene.releases).toBe(0);
    expect(scene.control.keepsBackAck()).toBe(true);
    scene.run(1000);
    expect(scene.releases).toBe(1);
    expect(scene.control.keepsBackAck()).toBe(false);
  });

  test("does not wait for ever for the destination's", () => {
    const scene = new Scene({ awaitsDestinationAck: true }).run(60_000);
    expect(scene.leftBytes).toBeDefined();
    expect(scene.recorded[0]).toMatchObject({ type: "notice" });
    expect(scene.decisions).toContain("now");
  });

  test("goes on, with a notice, when it refuses the limit", async () => {
    const scene = new Scene({ limitFails: true }).run(60_000, (scene) => scene.releases > 0);
    await Promise.resolve();
    expect(scene.releases).toBe(1);
    expect(scene.recorded).toContainEqual({
      type: "notice",
      message: "Switchover could not be steered: no such parameter",
    });
  });
});

test("a hypervisor that decides by itself is told all that the goal affords, and nothing is decided for it", () => {
  const scene = new Scene({ switchoverControl: "limit" }).run(60_000);
  expect(scene.releases).toBe(0);
  expect(scene.decisions).toEqual([]);
  // 300 ms less the fixed part, the queue and the device state, at the link's rate of deltas.
  const pagesMs = 300 - 10 - ((250_000 + 128 * 1024) / LINK_BYTES_PER_SECOND) * 1000 - 0.5;
  expect(
    scene.limits.at(-1)! / ((pagesMs / 1000) * Math.min(LINK_BYTES_PER_SECOND / 0.05, 200e6)),
  ).toBeCloseTo(1, 1);
  expect(scene.control.lookAgainMs).toBe(50);
});
