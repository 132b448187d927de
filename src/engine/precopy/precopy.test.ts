import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  FakeGuest,
  type FakeGuestOptions,
  FakeReader,
  type FakeReaderOptions,
  type GuestCall,
  live,
} from "../../../test/support/precopy-guest.ts";
import { VirtualClock } from "../../base/clock.ts";
import type { OutgoingEnd } from "../ports.ts";
import { type PrecopyLimits, PrecopyVm } from "./precopy.ts";

const LOADED = 0;
const NOT_LOADED = 1;

interface Scene {
  clock: VirtualClock;
  guest: FakeGuest;
  vm: PrecopyVm;
  reader: FakeReader;
  decisions: string[];
  /** As soon as it is over. */
  end: OutgoingEnd | undefined;
  live(ms: number): Promise<void>;
}

async function start(
  options: FakeGuestOptions & FakeReaderOptions & { limits?: PrecopyLimits } = {},
): Promise<Scene> {
  const clock = new VirtualClock();
  const guest = new FakeGuest(options);
  const decisions: string[] = [];
  const vm = new PrecopyVm({
    guest,
    clock,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    decision: (choice, reason) => decisions.push(`${choice}: ${reason}`),
  });
  const reader = new FakeReader(await vm.begin(), guest, clock, options);
  const scene: Scene = {
    ...{ clock, guest, vm, reader, decisions, end: undefined },
    live: (ms) => live(clock, guest, ms),
  };
  void vm.ended.then((end) => {
    scene.end = end;
  });
  return scene;
}

/** Writes so many different pages per millisecond, the same again and again after `period` pages. */
function busy(pagesPerMs: number, period: number): NonNullable<FakeGuestOptions["work"]> {
  let next = 0;
  return (guest) => {
    for (let i = 0; i < pagesPerMs; i++) guest.write(next++ % period);
  };
}

const NO_LIMITS: PrecopyLimits = {
  iterationsMax: Number.POSITIVE_INFINITY,
  timeMsMax: Number.POSITIVE_INFINITY,
  ramMultipleMax: Number.POSITIVE_INFINITY,
};

describe("pre-copy", () => {
  it("names every page in the first pass, the zero pages too, whatever an earlier migration has taken", async () => {
    const { reader, live: pass } = await start({ pageCount: 10 });
    await pass(1);
    const sections = reader.sections.slice(1);
    expect(sections.flatMap(({ pages }) => pages)).toEqual([0, 2, 4, 6, 8]);
    expect(sections.flatMap(({ zeroPages }) => zeroPages)).toEqual([1, 3, 5, 7, 9]);
    // Short ones: what is decided of a section is decided soon.
    expect(Math.max(...sections.map(({ pages }) => pages.length))).toBe(4);
  });

  it("sends in each iteration what has become dirty since the one before", async () => {
    const { guest, reader, live: pass } = await start();
    await pass(10);
    const firstPass = reader.sections.length;
    guest.write(3);
    guest.write(30);
    await pass(60);
    guest.write(3);
    await pass(60);
    expect(reader.sections.slice(firstPass).map(({ pages }) => pages)).toEqual([[3, 30], [3]]);
  });

  it("does not scan more often than the guest can bear", async () => {
    const { guest, live: pass } = await start();
    await pass(1000);
    expect(guest.calls.filter((call) => call === "scan")).toHaveLength(21);
  });

  it("iterates until SWITCHOVER_ACK comes, then stops the guest and sends the rest and the device state", async () => {
    const scene = await start({ work: busy(1, 8) });
    await scene.live(500);
    expect(scene.guest.calls).not.toContain("stop");
    scene.reader.acknowledgeSwitchover();
    await scene.live(1);
    expect(scene.guest.isRunning).toBe(false);
    const { calls } = scene.guest;
    expect(calls.slice(calls.indexOf("stop"))).toEqual(["stop", "scan", "take", "take", "deviceState"]);
    expect(scene.reader.complete).toBe(true);
    expect(scene.reader.memory.equals(scene.guest.memory)).toBe(true);
    expect(scene.end).toBeUndefined();
  });

  it("stops only when no more is left than the limit allows, if one was set", async () => {
    let work = busy(2, 32);
    const scene = await start({
      ...{ bytesPerMs: 1024 },
      work: (guest, ms) => work(guest, ms),
    });
    await scene.vm.limitSwitchover(4 * scene.guest.pageBytes);
    await scene.live(300);
    scene.reader.acknowledgeSwitchover();
    await scene.live(1000);
    expect(scene.guest.calls).not.toContain("stop");
    work = () => {};
    await scene.live(500);
    expect(scene.reader.complete).toBe(true);
  });

  it("holds a guest that dirties more between two scans than the limit allows, for ever if need be", async () => {
    const scene = await start({ work: busy(1, 1000), pageCount: 1000 });
    await scene.vm.limitSwitchover(0);
    await scene.live(225);
    scene.reader.acknowledgeSwitchover();
    await scene.live(5000);
    expect(scene.guest.calls).not.toContain("stop");
    await scene.vm.limitSwitchover(60 * scene.guest.pageBytes);
    await scene.live(100);
    expect(scene.reader.complete).toBe(true);
  });

  it("leaves what is unsent of an iteration for the stop when it may stop in the middle of it", async () => {
    const scene = await start({ pageCount: 64, bytesPerMs: 4096 });
    await scene.live(100);
    for (let pageIndex = 0; pageIndex < 64; pageIndex++) scene.guest.write(pageIndex);
    await scene.live(50);
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    const [cut, last] = scene.reader.sections.slice(-2);
    expect(cut!.pages.length).toBeLessThan(64);
    expect([...cut!.pages, ...last!.pages]).toHaveLength(64);
    expect(scene.reader.memory.equals(scene.guest.memory)).toBe(true);
  });

  it("sends all that is left once the guest has stopped, whatever the reader says then", async () => {
    const scene = await start({ work: busy(1, 16), bytesPerMs: 4096 });
    await scene.live(100);
    scene.reader.acknowledgeSwitchover();
    for (let ms = 0; ms < 300; ms++) {
      await scene.live(1);
      scene.reader.acknowledgeSwitchover();
    }
    expect(scene.reader.complete).toBe(true);
    expect(scene.reader.memory.equals(scene.guest.memory)).toBe(true);
  });

  it("tells the reader of the stop before it looks for the last pages", async () => {
    const calls: string[] = [];
    const scene = await start({
      onCall: (call) => void calls.push(call),
      onStopped: () => calls.push("the reader knows"),
    });
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    expect(calls.slice(calls.indexOf("stop"))).toEqual(["stop", "the reader knows", "scan", "deviceState"]);
  });

  it("waits for a reader that has enough, for ever if need be, and hands it nothing meanwhile", async () => {
    const scene = await start({ bytesPerMs: 0.001 });
    await scene.live(500);
    expect(scene.reader.stream).toHaveLength(1);
    expect(scene.guest.isRunning).toBe(true);
  });

  it("makes the same stream of the same guest", async () => {
    const streams: Buffer[] = [];
    for (let run = 0; run < 2; run++) {
      const scene = await start({ work: busy(1, 20), bytesPerMs: 5000 });
      await scene.live(1500);
      scene.reader.acknowledgeSwitchover();
      await scene.live(500);
      expect(scene.reader.complete).toBe(true);
      streams.push(Buffer.concat(scene.reader.stream));
    }
    expect(streams[0]!.equals(streams[1]!)).toBe(true);
  });

  it("holds pages back that keep changing faster than they can be sent, and sends them all at the stop", async () => {
    // 16 hot pages, all of them dirty again whenever they have been sent; now and then a cold one.
    const work = (guest: FakeGuest, ms: number) => {
      for (let pageIndex = 0; pageIndex < 16; pageIndex++) guest.write(pageIndex);
      if (ms % 100 === 0) guest.write(16 + ((ms / 100) % 16));
    };
    const scene = await start({ work, limits: { ...NO_LIMITS, iterationsMax: 30 } });
    await scene.live(2000);
    const iterations = scene.reader.sections.slice(2, -1);
    const hot = iterations.filter(({ pages }) => pages.includes(0)).length;
    expect(hot).toBeGreaterThan(2); // They are tried now and then: they may have cooled down.
    expect(hot).toBeLessThan(10);
    const cold = new Set(iterations.flatMap(({ pages }) => pages).filter((pageIndex) => pageIndex >= 16));
    expect(cold.size).toBeGreaterThan(10);
    expect(scene.reader.memory.equals(scene.guest.memory)).toBe(true);
  });
});

describe("a limit of pre-copy", () => {
  const work = busy(4, 32);

  it.each([
    ["iterations", { ...NO_LIMITS, iterationsMax: 3 }, "now: limit reached: 3 iterations"],
    ["time", { ...NO_LIMITS, timeMsMax: 300 }, "now: limit reached: 300 ms"],
    ["pages", { ...NO_LIMITS, ramMultipleMax: 2 }, "now: limit reached: 2 times the guest's RAM handed over"],
  ])("on %s stops the guest, and says so", async (_name, limits, decision) => {
    const scene = await start({ work, limits });
    await scene.live(2000);
    expect(scene.decisions).toEqual([decision]);
    expect(scene.reader.complete).toBe(true);
    expect(scene.reader.memory.equals(scene.guest.memory)).toBe(true);
  });

  it("never cuts the first pass short", async () => {
    const scene = await start({ work, limits: { ...NO_LIMITS, timeMsMax: 1 }, bytesPerMs: 5000 });
    await scene.live(500);
    // All but the last section, in which the guest stood still.
    const named = scene.reader.sections
      .slice(1, -1)
      .flatMap(({ pages, zeroPages }) => [...pages, ...zeroPages]);
    expect(new Set(named).size).toBe(scene.guest.pageCount);
    expect(scene.reader.complete).toBe(true);
  });
});

describe("what pre-copy says of itself", () => {
  it("counts what the guest must be expected to have dirtied since the last scan as remaining", async () => {
    // One page per millisecond, on a link that takes one in four: 64 pages take 256 ms.
    const scene = await start({ pageCount: 64, work: busy(1, 64), bytesPerMs: 1024 });
    await scene.live(1000);
    const pages: number[] = [];
    const rates: number[] = [];
    for (let i = 0; i < 20; i++) {
      await scene.live(25);
      const { remainingBytes, dirtyPagesPerSecond } = await scene.vm.status();
      pages.push(remainingBytes! / 4096);
      rates.push(dirtyPagesPerSecond!);
    }
    // There is no moment at which little were left.
    expect(Math.min(...pages)).toBeGreaterThan(50);
    expect(Math.max(...pages)).toBeLessThanOrEqual(64);
    // Nor do pages that are held back count as dirtied again by every scan.
    expect(Math.min(...rates)).toBeGreaterThan(150);
    expect(Math.max(...rates)).toBeLessThan(1100);
  });

  it("counts iterations, measures the dirty rate, and how long the guest stood still", async () => {
    const scene = await start({ work: busy(1, 1000), pageCount: 1000 });
    // Not "nothing is left": all of it is.
    expect(await scene.vm.status()).toEqual({ iteration: 0 });
    await scene.live(120);
    const status = await scene.vm.status();
    expect(status.iteration).toBe(2);
    expect(status.dirtyPagesPerSecond).toBeCloseTo(1000, -1);
    expect(status.downtimeMs).toBeUndefined();
    scene.reader.acknowledgeSwitchover();
    await scene.live(40);
    scene.reader.verdict(LOADED);
    await scene.live(1);
    expect(await scene.vm.status()).toMatchObject({ iteration: 3, remainingBytes: 0 });
    expect((await scene.vm.status()).downtimeMs).toBeCloseTo(40, -1);
  });
});

describe("the verdict of the destination", () => {
  async function handedOver(): Promise<Scene> {
    const scene = await start({ work: busy(1, 8) });
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    expect(scene.reader.complete).toBe(true);
    return scene;
  }

  it("that it is loaded completes the migration: the guest never runs here again", async () => {
    const scene = await handedOver();
    scene.reader.verdict(LOADED);
    // Whatever comes behind it, at once or later.
    scene.reader.verdict(NOT_LOADED);
    const cancelled = scene.vm.cancel();
    scene.reader.close();
    await scene.live(10);
    expect(scene.end).toEqual({ outcome: "completed" });
    await cancelled;
    await scene.vm.cancel();
    await scene.live(10);
    expect(scene.guest.calls).not.toContain("resume");
    expect(await scene.vm.isRunning()).toBe(false);
  });

  it("that it could not load the guest lets it run on", async () => {
    const scene = await handedOver();
    scene.reader.verdict(NOT_LOADED);
    await scene.live(1);
    expect(scene.end).toEqual({ outcome: "failed", reason: "the destination could not load the guest" });
    expect(scene.guest.isRunning).toBe(true);
  });

  it("comes too late after a cancel", async () => {
    const scene = await handedOver();
    const cancelled = scene.vm.cancel();
    scene.reader.verdict(LOADED);
    await cancelled;
    expect(scene.end).toEqual({ outcome: "cancelled", reason: "cancelled" });
    expect(scene.guest.isRunning).toBe(true);
  });

  it("is worth nothing before everything was handed over", async () => {
    const scene = await start({ work: busy(1, 8) });
    await scene.live(100);
    scene.reader.verdict(LOADED);
    await scene.live(10);
    expect(scene.end).toEqual({
      outcome: "failed",
      reason: "the destination gave its verdict before the end",
    });
    expect(scene.guest.isRunning).toBe(true);
  });
});

/** When the migration is disturbed: in each call to the guest, and wherever it waits. */
const MOMENTS: readonly [GuestCall, number][] = [
  ["forgetTaken", 1],
  ["scan", 1],
  ["take", 1],
  ["take", 3],
  ["scan", 2],
  ["scan", 4],
  ["stop", 1],
  ["scan", 5], // of the stopped guest
  ["deviceState", 1],
];
const THREE_ITERATIONS = { ...NO_LIMITS, iterationsMax: 3 };

function expectKept({ guest, reader }: Scene): void {
  expect(guest.isRunning).toBe(true);
  expect(guest.overlapping).toBe(0);
  expect(guest.calls.filter((call) => call === "resume").length).toBeLessThanOrEqual(1);
  expect(reader.dataAfterClose).toBe(0);
}

describe("giving up", () => {
  it.each(MOMENTS)("during call %s %i leaves the guest running here", async (name, number) => {
    let disturb = () => {};
    const scene = await start({
      work: busy(1, 16),
      limits: THREE_ITERATIONS,
      onCall: async (call, count) => {
        await new Promise(setImmediate);
        if (call !== name || count !== number) return;
        disturb();
        await new Promise(setImmediate);
      },
    });
    disturb = () => {
      void scene.vm.cancel();
      scene.reader.close();
    };
    await scene.live(1000);
    expect(scene.end).toEqual({ outcome: "cancelled", reason: "cancelled" });
    expectKept(scene);
  });

  it("while the reader has enough", async () => {
    const scene = await start({ bytesPerMs: 0.001 });
    await scene.live(10);
    await scene.vm.cancel();
    expect(scene.end).toEqual({ outcome: "cancelled", reason: "cancelled" });
    expectKept(scene);
  });

  it("while it rests between two iterations", async () => {
    const scene = await start();
    await scene.live(10);
    await scene.vm.cancel();
    expectKept(scene);
    expect(scene.clock.nextDueMs()).toBeUndefined();
  });

  it("while the verdict is awaited", async () => {
    const scene = await start();
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    expect(scene.guest.isRunning).toBe(false);
    scene.reader.close();
    await scene.live(1);
    expect(scene.end).toEqual({ outcome: "failed", reason: "the stream's reader went away" });
    expectKept(scene);
  });

  it("before anybody listens ends it at once, and nothing begins afterwards", async () => {
    const clock = new VirtualClock();
    for (const giveUp of ["cancel", "destroy", "end"] as const) {
      const guest = new FakeGuest();
      const vm = new PrecopyVm({ guest, clock, decision: () => {} });
      const channel = await vm.begin();
      if (giveUp === "cancel") await vm.cancel();
      else channel[giveUp]();
      expect((await vm.ended).outcome).toBe(giveUp === "cancel" ? "cancelled" : "failed");
      new FakeReader(channel, guest, clock);
      await live(clock, guest, 5);
      expect(guest.calls).toEqual([]);
    }
  });

  it("never lets a guest run that was paused when the migration began", async () => {
    const scene = await start({ isRunning: false });
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    expect(scene.reader.complete).toBe(true);
    await scene.vm.cancel();
    expect(scene.vm.wasRunning).toBe(false);
    expect(scene.guest.isRunning).toBe(false);
  });
});

describe("a guest whose hypervisor fails", () => {
  it.each(MOMENTS)("in call %s %i is kept", async (name, number) => {
    const scene = await start({
      work: busy(1, 16),
      limits: THREE_ITERATIONS,
      onCall: (call, count) => {
        if (call === name && count === number) throw new Error(`no ${call}`);
      },
    });
    await scene.live(1000);
    expect(scene.end).toEqual({ outcome: "failed", reason: `no ${name}` });
    expectKept(scene);
  });

  it("and cannot be resumed is not said to run", async () => {
    const scene = await start({
      onCall: (call) => {
        if (call === "deviceState" || call === "resume") throw new Error(`no ${call}`);
      },
    });
    scene.reader.acknowledgeSwitchover();
    await scene.live(100);
    expect(scene.end).toEqual({
      outcome: "failed",
      reason: "no deviceState; the guest could not be resumed: no resume",
    });
    expect(await scene.vm.isRunning()).toBe(false);
  });
});

it("runs once: a second listener is our own mistake", async () => {
  const vm = new PrecopyVm({ guest: new FakeGuest(), clock: new VirtualClock(), decision: () => {} });
  const listener = { data: () => {}, drained: () => {}, ended: () => {}, failed: () => {} };
  const channel = await vm.begin();
  channel.listen(listener);
  expect(() => channel.listen(listener)).toThrow("runs once");
  await vm.cancel();
});

const ACTIONS = ["ack", "loaded", "not loaded", "cancel", "close", "limit 0", "limit 8"] as const;

describe("whatever happens when", () => {
  it("the guest is here, running, or complete at the destination and never here again", async () => {
    const plan = fc.record({
      actions: fc.array(fc.tuple(fc.nat(150), fc.constantFrom(...ACTIONS)), { maxLength: 6 }),
      bytesPerMs: fc.constantFrom(undefined, 3000, 40_000),
      iterationsMax: fc.nat(3),
      failing: fc.option(
        fc.tuple(fc.constantFrom<GuestCall>("scan", "take", "stop", "deviceState"), fc.nat(6)),
        { freq: 3 },
      ),
      pagesPerMs: fc.nat(3),
      answers: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(plan, async ({ actions, bytesPerMs, iterationsMax, failing, pagesPerMs, answers }) => {
        const scene = await start({
          ...{ pageCount: 16, work: busy(pagesPerMs, 16), limits: { ...NO_LIMITS, iterationsMax } },
          ...(bytesPerMs === undefined ? {} : { bytesPerMs }),
          onCall: (call, count) => {
            if (call === failing?.[0] && count === failing[1]) throw new Error("failing");
          },
          onComplete: (reader) => {
            if (answers) reader.verdict(LOADED);
          },
        });
        const { guest, reader, vm } = scene;
        for (const [afterMs, action] of actions) {
          await scene.live(afterMs);
          if (action === "ack") reader.acknowledgeSwitchover();
          else if (action === "loaded") reader.verdict(LOADED);
          else if (action === "not loaded") reader.verdict(NOT_LOADED);
          else if (action === "cancel") void vm.cancel();
          else if (action === "close") reader.close();
          else await vm.limitSwitchover(action === "limit 0" ? 0 : 8 * 4096);
        }
        await scene.live(1000);
        await vm.cancel();
        expect(scene.end).toBeDefined();
        expect(guest.overlapping).toBe(0);
        expect(reader.dataAfterClose).toBe(0);
        const completed = scene.end!.outcome === "completed";
        expect(guest.isRunning).toBe(!completed);
        if (completed) {
          expect(reader.complete).toBe(true);
          expect(reader.memory.equals(guest.memory)).toBe(true);
          expect(guest.calls).not.toContain("resume");
        }
      }),
      { numRuns: 150 },
    );
  }, 120_000);
});
