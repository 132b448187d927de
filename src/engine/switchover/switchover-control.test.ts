// The moment of switchover on virtual time, against a hypervisor that counts as QEMU does: it looks for dirty
// pages only when little is left of those it knows, goes by its limit up to 100 ms late, and reports a forecast.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import type { RecordEntry } from "../../record/schema.ts";
import type { Proof } from "../transport/source-link.ts";
import type { Promises } from "./convergence.ts";
import { estimateDowntimeMs } from "./switchover.ts";
import { SwitchoverControl, type TransferProgress } from "./switchover-control.ts";

const LINK_BYTES_PER_SECOND = 12.5e6;
const LEAST_BYTES_PER_SECOND = 1000;
const SHORT_QUEUE_BYTES = 100_000;
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

interface SceneOptions extends Partial<Promises> {
  guest?: Partial<Guest>;
  goalMs?: number;
  switchoverControl?: "ack" | "limit" | "destination";
  awaitsDestinationAck?: boolean;
  limitFails?: boolean;
  postcopy?: "taken" | "refused";
  canThrottle?: boolean;
  isPaused?: boolean;
  /** The link is taken for a tenth of what it is. */
  seemsSlow?: boolean;
  linkIsBusy?: boolean;
}

class Scene {
  readonly clock = new VirtualClock();
  readonly control: SwitchoverControl;
  readonly recorded: RecordEntry[] = [];
  readonly limits: number[] = [];
  readonly throttles: number[] = [];
  readonly givenUp: string[] = [];
  /** Each time that post-copy was asked for: how often the hypervisor had been released by then. */
  readonly postcopies: number[] = [];
  readonly guest: Guest;
  /** Bytes that stood for nothing. */
  readonly rehearsed: number[] = [];
  #proof: Proof | undefined;
  releases = 0;
  shortened = 0;
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
  readonly #options: SceneOptions;

  constructor(options: SceneOptions = {}) {
    this.#options = options;
    this.guest = { ...GUEST, ...options.guest };
    this.control = new SwitchoverControl({
      vm: {
        wasRunning: options.isPaused !== true,
        switchoverControl: options.switchoverControl ?? "ack",
        awaitsDestinationAck: options.awaitsDestinationAck ?? false,
        limitSwitchover: async (bytes) => {
          if (options.limitFails === true) throw new Error("no such parameter");
          this.limits.push(bytes);
          this.#limitBytes = bytes;
        },
        ...(options.postcopy === undefined
          ? {}
          : {
              startPostcopy: async () => {
                this.postcopies.push(this.releases);
                if (options.postcopy === "refused") throw new Error("no userfaultfd");
              },
            }),
        ...(options.canThrottle === true
          ? { throttle: async (percentage: number) => void this.throttles.push(percentage) }
          : {}),
      },
      ...options,
      mode: "direct",
      downtimeMsMax: options.goalMs ?? 300,
      clock: this.clock,
      record: { add: (entry) => this.recorded.push(entry) },
      shortenQueue: () => this.shortened++,
      rehearse: (bytes) => {
        if (options.linkIsBusy === true) return false;
        this.rehearsed.push(bytes);
        if (options.seemsSlow === true)
          this.#proof = { bytes, answeredMs: 1 + (bytes / LINK_BYTES_PER_SECOND) * 1000 };
        return true;
      },
      release: () => this.releases++,
      giveUp: (error) => this.givenUp.push(error.code),
    });
  }

  /** False: it has only shown so far that it carries LEAST_BYTES_PER_SECOND. */
  isLinkKnown = true;

  isLost = false;

  get decisions(): string[] {
    return this.#choices("switchover");
  }

  /** What was decided about the migration as a whole. */
  get said(): string[] {
    return this.#choices("convergence");
  }

  #choices(subject: string): string[] {
    return this.recorded.flatMap((entry) =>
      entry.type === "decision" && entry.subject === subject ? [entry.choice] : [],
    );
  }

  run(ms: number, isOver: (scene: Scene) => boolean = (scene) => scene.leftBytes !== undefined): this {
    const isEnded = () => isOver(this) || this.givenUp.length > 0;
    for (const endMs = this.clock.nowMs() + ms; this.clock.nowMs() < endMs && !isEnded(); ) {
      this.#iterate();
      this.clock.advance(1);
      if (this.clock.nowMs() >= this.#lookMs) this.look();
    }
    return this;
  }

  look(mayDecide = true): void {
    const { iteration } = this;
    const dirtyPagesPerSecond = (this.#dirtyBytesPerMs * 1000) / 4096;
    const expectedBytes = this.#dirtyBytesPerMs * (this.clock.nowMs() - this.#iterationMs);
    const remainingBytes = this.remainingBytes + expectedBytes;
    this.control.look({ iteration, remainingBytes, dirtyPagesPerSecond }, this.progress, mayDecide);
    this.#lookMs = this.clock.nowMs() + this.control.lookAgainMs;
  }

  get progress(): TransferProgress {
    const stalledMs = this.stalledSinceMs === undefined ? 0 : this.clock.nowMs() - this.stalledSinceMs;
    const seems = this.#options.seemsSlow === true ? 10 : 1;
    return {
      handedOverBytes: this.#handedOverBytes,
      handoverMs: this.#handoverMs,
      link: {
        wireBytes: this.#wireBytes,
        inFlightBytes: this.shortened === 0 ? 250_000 : SHORT_QUEUE_BYTES,
        shortQueueBytes: SHORT_QUEUE_BYTES,
        waitingBytes: 0,
        windowBytes: 250_000,
        linkBytesPerSecond: this.isLinkKnown ? LINK_BYTES_PER_SECOND / seems : LEAST_BYTES_PER_SECOND,
        proof: this.#proof,
        isLinkKnown: this.isLinkKnown,
        limit: this.isLinkKnown ? "link" : "unknown",
        isLost: this.isLost,
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
      queuedBytes: this.shortened === 0 ? 250_000 : SHORT_QUEUE_BYTES,
      shortQueueBytes: SHORT_QUEUE_BYTES,
      linkBytesPerSecond: LINK_BYTES_PER_SECOND,
      roundTripMs: 1,
      roundTrips: 0.5,
      deviceStateBytes: 128 * 1024,
      fixedMs: 10,
    });
  }

  /** A millisecond of it. */
  #iterate(): void {
    const { workingSetBytes, ratio, handoverBytesPerSecond } = this.guest;
    const dirtyBytesPerSecond = this.guest.dirtyBytesPerSecond * (1 - (this.throttles.at(-1) ?? 0) / 100);
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
    const mayStop = this.releases > 0 || this.#options.switchoverControl === "limit";
    if (mayStop && this.remainingBytes <= this.#limitInForceBytes) {
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

  test("has the queue shortened before it gives the acknowledgement", () => {
    const scene = new Scene().run(60_000, (scene) => scene.shortened > 0);
    expect([scene.shortened, scene.releases]).toEqual([1, 0]);
    expect(scene.decisions.at(-1)).toBe("now");
    const shortenedMs = scene.clock.nowMs();
    scene.run(60_000, (scene) => scene.releases > 0);
    expect(scene.clock.nowMs() - shortenedMs).toBeLessThanOrEqual(50);
    scene.run(60_000);
    expect([scene.shortened, scene.releases]).toEqual([1, 1]);
  });

  test("does not hold a guest for a link that has carried whatever was sent, however little that was", () => {
    const scene = new Scene();
    scene.isLinkKnown = false;
    scene.run(60_000);
    expect(scene.releases).toBe(1);
    expect(scene.leftBytes).toBeDefined();
  });

  describe("and a link that seems slower than it is", () => {
    const guest = { dirtyBytesPerSecond: 4e6, workingSetBytes: 4e6, ratio: 0.01 };

    test("rehearses, and stops the guest within the goal", () => {
      const scene = new Scene({ guest, goalMs: 100, seemsSlow: true }).run(60_000);
      expect(scene.leftBytes).toBeDefined();
      expect(scene.downtimeMs).toBeLessThanOrEqual(100);
      expect(scene.rehearsed).toHaveLength(1);
      expect(scene.decisions).toContain("rehearse");
    });

    test("does not rehearse while the link is in use, which says more; the guest is held", () => {
      const scene = new Scene({ guest, goalMs: 100, seemsSlow: true, linkIsBusy: true }).run(60_000);
      expect([scene.leftBytes, scene.rehearsed]).toEqual([undefined, []]);
      expect(scene.decisions).not.toContain("rehearse");
    });
  });

  test("holds the guest during the first pass, and while the goal is out of reach", () => {
    const scene = new Scene({ guest: { dirtyBytesPerSecond: 1e9, ratio: 0.5 } });
    scene.run(20_000);
    expect([scene.iteration, scene.limits.length]).toEqual([0, 0]);
    scene.run(60_000);
    expect(scene.iteration).toBeGreaterThan(0);
    expect(scene.releases).toBe(0);
    expect(new Set(scene.decisions)).toEqual(new Set(["wait"]));
  });

  test("keeps its limit at what is affordable from the end of the first pass on, not only from the release", () => {
    const scene = new Scene().run(60_000, (scene) => scene.releases > 0);
    expect(scene.limits.length).toBeGreaterThan(3);
    expect(scene.limits.at(-1)).toBeGreaterThan(0.5e6);
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

  test("keeps a guest that has become too busy since the release, and says so once", () => {
    const scene = new Scene().run(60_000, (scene) => scene.releases > 0);
    Object.assign(scene.guest, { dirtyBytesPerSecond: 300e6, ratio: 0.1, handoverBytesPerSecond: 1e9 });
    scene.run(120_000);
    expect(scene.leftBytes).toBeUndefined();
    expect(scene.said.filter((choice) => choice === "wait")).toHaveLength(1);
  });

  test("stops no guest for a link that stands still", () => {
    const scene = new Scene().run(60_000, (scene) => scene.iteration > 0);
    scene.stalledSinceMs = scene.clock.nowMs();
    scene.run(25_000);
    expect([scene.releases, scene.limits.at(-1)]).toEqual([0, 0]);
  });

  test.each(["abort", "switchover", "throttle"] as const)(
    "does nothing to a guest for a link that stands still, whatever the policy: %s",
    (onStall) => {
      const scene = new Scene({ onStall, canThrottle: true }).run(60_000, (scene) => scene.iteration > 0);
      scene.stalledSinceMs = scene.clock.nowMs();
      scene.run(45_000);
      expect([scene.releases, scene.throttles, scene.givenUp, scene.said]).toEqual([0, [], [], []]);
      scene.stalledSinceMs = undefined;
      scene.run(60_000);
      expect(scene.downtimeMs).toBeLessThanOrEqual(300);
    },
  );

  test("is not stopped for a link that is lost, released or not, however little is left", () => {
    for (const isReleased of [false, true]) {
      const scene = new Scene().run(60_000, ({ iteration, releases }) =>
        isReleased ? releases > 0 : iteration > 0,
      );
      const { releases } = scene;
      scene.isLost = true;
      scene.remainingBytes = 4096;
      scene.look();
      expect(scene.limits.at(-1)).toBe(0);
      scene.run(30_000);
      expect([scene.releases, scene.leftBytes, scene.limits.at(-1)]).toEqual([releases, undefined, 0]);
      scene.isLost = false;
      scene.run(60_000);
      expect(scene.downtimeMs).toBeLessThanOrEqual(300);
    }
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

describe("a hypervisor that decides by itself", () => {
  test("is told all that the goal affords, and nothing is decided for it", () => {
    const scene = new Scene({ switchoverControl: "limit" }).run(60_000);
    expect([scene.releases, scene.decisions]).toEqual([0, []]);
    // 300 ms less the fixed part, the queue and the device state, at the link's rate of deltas.
    const pagesMs = 300 - 10 - ((250_000 + 128 * 1024) / LINK_BYTES_PER_SECOND) * 1000 - 0.5;
    expect(
      scene.limits.at(-1)! / ((pagesMs / 1000) * Math.min(LINK_BYTES_PER_SECOND / 0.05, 200e6)),
    ).toBeCloseTo(1, 1);
    expect(scene.control.lookAgainMs).toBe(50);
    expect(scene.downtimeMs).toBeLessThanOrEqual(300);
    expect(scene.control.expectation.forecastDowntimeMs).toBeLessThanOrEqual(300);
  });

  test("is told more than that only by a policy", () => {
    const guest = TOO_BUSY;
    const kept = new Scene({ guest, switchoverControl: "limit" }).run(120_000);
    expect([kept.leftBytes, kept.said]).toEqual([undefined, ["forecast", "wait"]]);
    const stopped = new Scene({ guest, switchoverControl: "limit", onStall: "switchover" }).run(120_000);
    expect(stopped.leftBytes).toBeGreaterThan(Math.max(...kept.limits));
  });
});

describe("a hypervisor of which the destination tells whether it waits", () => {
  const switchoverControl = "destination";

  test("is not thought to wait as long as the destination acknowledges nothing", () => {
    const scene = new Scene({ switchoverControl }).run(20_000);
    expect([scene.releases, scene.decisions]).toEqual([0, []]);
  });

  test("is held from the destination's acknowledgement on, until it is time", () => {
    const scene = new Scene({ switchoverControl });
    expect(scene.control.keepsBackAck()).toBe(true);
    scene.run(60_000);
    expect([scene.releases, scene.decisions.includes("now")]).toEqual([1, true]);
    expect(scene.downtimeMs).toBeLessThanOrEqual(300);
  });

  test.each(["before", "after"])("is let go when nothing is left to judge by, %s it was held", (when) => {
    const scene = new Scene({ switchoverControl, guest: TOO_BUSY });
    if (when === "before") scene.control.letGo();
    expect(scene.control.keepsBackAck()).toBe(when === "after");
    scene.control.letGo();
    scene.run(20_000, () => false);
    expect([scene.releases, scene.decisions]).toEqual([when === "after" ? 1 : 0, []]);
  });
});

test("a guest that does not run is not waited for, whatever the goal", () => {
  const guest = { dirtyBytesPerSecond: 0 };
  const scene = new Scene({ guest, goalMs: 5, isPaused: true, onStall: "abort" }).run(60_000);
  expect([scene.leftBytes, scene.releases, scene.said]).toEqual([0, 1, []]);
  const running = new Scene({ guest, goalMs: 5 }).run(60_000);
  expect([running.leftBytes, running.said]).toEqual([undefined, ["forecast", "forecast", "wait"]]);
});

/** Rewrites its pages, of which the link carries a third. */
const TOO_BUSY = { dirtyBytesPerSecond: 40e6, workingSetBytes: 96e6, ratio: 0.9 };

describe("a guest that dirties its memory faster than the link carries it", () => {
  test("is told of once, and waited for", () => {
    const scene = new Scene({ guest: TOO_BUSY, canThrottle: true }).run(300_000);
    expect([scene.leftBytes, scene.releases, scene.throttles]).toEqual([undefined, 0, []]);
    expect(scene.said).toEqual(["forecast", "wait"]);
    const [forecast] = scene.recorded.filter(
      (entry) => entry.type === "decision" && entry.choice === "forecast",
    );
    expect(forecast).toMatchObject({
      reason: expect.stringMatching(
        /^at this rate never: the guest dirties [\d.]+ MB\/s, encoded to [\d.]+ MB\/s, and/,
      ),
    });
  });

  test("is given up, with policy abort, and nothing is decided any more", () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "abort" }).run(300_000);
    expect(scene.givenUp).toEqual(["NOT_CONVERGING"]);
    expect([scene.releases, scene.said.at(-1)]).toEqual([0, "give up"]);
    const count = scene.recorded.length;
    scene.look();
    expect(scene.recorded).toHaveLength(count);
  });

  test("is slowed down, with policy throttle, no more than it takes, and gets its time back", () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "throttle", canThrottle: true }).run(600_000);
    expect(scene.leftBytes).toBeDefined();
    expect(scene.downtimeMs).toBeLessThanOrEqual(300);
    // 12.5 of 36 MB/s are a third: from 80 % on it gets better, which shows an iteration later.
    expect(scene.throttles.slice(0, 4)).toEqual([20, 40, 60, 80]);
    expect(scene.throttles.at(-1)).toBeLessThan(99);
    const steps = scene.throttles.length;
    scene.control.end();
    scene.control.end();
    expect(scene.throttles.slice(steps)).toEqual([0]);
  });

  test("is left to the hypervisor's count within the goal once it is slowed down, however the estimate swings", () => {
    // What our looks see is above the goal, again and again: bursts of writes that are sent before the next one.
    const seen = (options: SceneOptions) => {
      const scene = new Scene({ guest: TOO_BUSY, onStall: "throttle", canThrottle: true, ...options });
      scene.run(25_000);
      for (let i = 0; i < 400 && scene.releases === 0; i++) {
        scene.iteration++;
        scene.remainingBytes = i % 2 === 0 ? 30e6 : 20e6;
        scene.look();
        scene.clock.advance(50);
      }
      return scene;
    };
    const scene = seen({});
    expect([scene.throttles.length > 0, scene.releases]).toEqual([true, 1]);
    // What is found at most is what the link carries within the goal.
    const { ratio } = scene.guest;
    expect((scene.limits.at(-1)! * ratio) / LINK_BYTES_PER_SECOND).toBeLessThan(0.3);
    // Where even nothing left takes longer than the goal, nothing may be found.
    expect(seen({ goalMs: 20 }).releases).toBe(0);
    expect(seen({ onStall: "wait" }).releases).toBe(0);
  });

  test("is handed over, with policy postcopy, once, and only then released", async () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "postcopy", postcopy: "taken" }).run(60_000);
    expect(scene.control.postcopyAsked).toBe(true);
    expect([scene.postcopies, scene.releases]).toEqual([[0], 0]);
    await Promise.resolve();
    expect(scene.releases).toBe(1);
    expect(scene.said).toEqual(["forecast", "postcopy", "postcopy"]);
  });

  test("is given up when the hypervisor cannot begin post-copy", async () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "postcopy", postcopy: "refused" }).run(60_000);
    await Promise.resolve();
    await Promise.resolve();
    expect([scene.givenUp, scene.releases]).toEqual([["NOT_CONVERGING"], 0]);
  });

  test("is not given up when the hypervisor has stopped it before it refuses post-copy", async () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "postcopy", postcopy: "refused" }).run(60_000);
    scene.control.guestStopped();
    await Promise.resolve();
    await Promise.resolve();
    expect(scene.givenUp).toEqual([]);
    expect(scene.recorded.at(-1)).toMatchObject({
      type: "notice",
      message: expect.stringContaining("no userfaultfd"),
    });
  });

  test("is waited for where there is no post-copy, or the stream is not understood", () => {
    for (const postcopy of [undefined, "taken" as const]) {
      const scene = new Scene({ guest: TOO_BUSY, onStall: "postcopy", ...(postcopy && { postcopy }) });
      if (postcopy !== undefined) scene.control.forbidPostcopy();
      scene.run(60_000);
      expect([scene.said, scene.postcopies]).toEqual([["forecast", "postcopy", "wait"], []]);
    }
  });

  test("is waited for where it cannot be slowed down", () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "throttle" }).run(60_000);
    expect(scene.leftBytes).toBeUndefined();
    expect(scene.said).toEqual(["forecast", "throttle", "wait"]);
  });

  test("is stopped, with policy switchover, about as long as was said", () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "switchover" }).run(300_000);
    expect(scene.leftBytes).toBeDefined();
    const said = scene.recorded.filter((entry) => entry.type === "decision" && entry.choice === "switchover");
    expect(said).toHaveLength(2);
    const forecast = scene.control.expectation.forecastDowntimeMs!;
    expect(Math.abs(scene.downtimeMs / forecast - 1)).toBeLessThan(0.25);
  });

  test.each(["wait", "throttle", "abort"] as const)(
    "is given up with policy %s when its time is over",
    (onStall) => {
      const scene = new Scene({ guest: TOO_BUSY, onStall, timeMsMax: 35_000 }).run(600_000);
      expect(scene.givenUp).toEqual(["MAX_TIME_REACHED"]);
      expect(scene.clock.nowMs()).toBeGreaterThanOrEqual(35_000);
      expect(scene.clock.nowMs()).toBeLessThanOrEqual(35_020);
      const reasons = scene.recorded.flatMap((entry) => (entry.type === "decision" ? [entry.reason] : []));
      const foretold = reasons.findIndex((reason) => reason.startsWith("--max-time 35.0 s will not be kept"));
      expect(foretold).toBeGreaterThan(-1);
      expect(foretold).toBeLessThan(reasons.length - 1);
    },
  );

  test("is stopped with policy switchover before its time is over", () => {
    const scene = new Scene({ guest: TOO_BUSY, onStall: "switchover", timeMsMax: 40_000 }).run(600_000);
    expect(scene.leftBytes).toBeDefined();
    expect(scene.clock.nowMs() + scene.downtimeMs).toBeLessThan(41_000);
  });

  test("is given up before more is sent than was promised", () => {
    const scene = new Scene({ guest: TOO_BUSY, wireBytesMax: 300e6 }).run(600_000);
    expect(scene.givenUp).toEqual(["MAX_BYTES_REACHED"]);
    const { wireBytes } = scene.progress.link;
    expect(wireBytes).toBeLessThan(300e6 + 0.02 * LINK_BYTES_PER_SECOND);
    expect(wireBytes).toBeGreaterThan(299e6);
  });
});

test("a migration that needs longer than was promised is told of during its first pass, and given up in it", () => {
  const scene = new Scene({ timeMsMax: 10_000 }).run(600_000);
  expect([scene.iteration, scene.givenUp]).toEqual([0, ["MAX_TIME_REACHED"]]);
  expect(scene.said).toEqual(["forecast", "give up"]);
  expect(scene.recorded[0]).toMatchObject({
    reason: expect.stringMatching(/^--max-time 10.0 s will not be kept: 2\d.\d s in all at least$/),
  });
});

test("promises that are kept are not spoken of", () => {
  const scene = new Scene({ timeMsMax: 25_000, wireBytesMax: 280e6, onStall: "abort" }).run(60_000);
  expect(scene.leftBytes).toBeDefined();
  expect([scene.said, scene.givenUp]).toEqual([[], []]);
});

describe("a hypervisor that does not answer", () => {
  test("does not keep a migration from being given up when its time is over", () => {
    const scene = new Scene({ timeMsMax: 5000 });
    scene.run(2000);
    scene.clock.advance(3000);
    expect(scene.givenUp).toEqual([]);
    scene.clock.advance(1000);
    expect(scene.givenUp).toEqual(["MAX_TIME_REACHED"]);
  });

  test("says nothing of a guest that is gone", () => {
    const scene = new Scene({ timeMsMax: 5000 });
    scene.run(2000);
    scene.control.end();
    scene.clock.advance(60_000);
    expect(scene.givenUp).toEqual([]);
  });

  test("has its guest taken back that stands still at the limit, when it has done so for longer than was agreed", () => {
    const scene = new Scene({ timeMsMax: 5000, goalMs: 1000 });
    scene.run(2000);
    scene.clock.advance(2500);
    scene.control.guestStopped();
    scene.clock.advance(990);
    expect(scene.givenUp).toEqual([]);
    scene.clock.advance(20);
    expect(scene.givenUp).toEqual(["MAX_TIME_REACHED"]);
  });
});

describe("limits, when it is decided that any downtime will do", () => {
  /** A link that carries 2 s of the guest's rewriting. */
  const decided = (more: object) => {
    const scene = new Scene({ guest: TOO_BUSY, ...more });
    scene.control.allowAnyDowntime();
    return scene;
  };

  test("hold as long as the guest has not been stopped", () => {
    // Never within what it may be stopped for: the hypervisor goes on.
    const scene = decided({ timeMsMax: 26_000, limitFails: true }).run(600_000);
    expect(scene.givenUp).toEqual(["MAX_TIME_REACHED"]);
    expect(scene.clock.nowMs()).toBeLessThanOrEqual(26_020);
  });

  test("and while it stands still", () => {
    const scene = decided({ wireBytesMax: 1e9, goalMs: 300 });
    scene.control.guestStopped();
    scene.clock.advance(200);
    const link = { ...scene.progress.link, wireBytes: 1e9 };
    scene.control.look({}, { ...scene.progress, link }, false);
    expect(scene.givenUp).toEqual([]);
    scene.clock.advance(200);
    scene.control.look({}, { ...scene.progress, link }, false);
    expect(scene.givenUp).toEqual(["MAX_BYTES_REACHED"]);
  });

  test("keep a guest from being stopped for longer than until they are reached", () => {
    const free = decided({}).run(600_000);
    expect(free.downtimeMs).toBeGreaterThan(2000);
    const scene = decided({ timeMsMax: free.clock.nowMs() + 1000 }).run(600_000);
    expect([scene.leftBytes, scene.givenUp]).toEqual([undefined, ["MAX_TIME_REACHED"]]);
  });
});
