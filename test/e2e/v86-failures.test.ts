// What goes wrong, in every phase: an operator who cancels, a destination that dies, a link that breaks. Before
// the migration is committed the guest goes on at the source, whole; after it, never there again by itself; and
// at no time do two run.

import { describe, expect, test } from "vitest";
import { PRECOPY_LIMITS } from "../../src/engine/precopy.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import type { V86Migration, V86MigrationOptions, V86MigrationResult } from "../support/v86-migration.ts";
import { expectKept, expectMoved, migrate, openVm, type Pair, startPair } from "./v86-scene.ts";

type Act = (migration: V86Migration) => void;

interface Phase {
  options: Partial<V86MigrationOptions>;
  /** Calls `act` when the migration is in this phase. */
  when: (act: Act) => Partial<V86MigrationOptions>;
  isCommittedAfterDeath?: boolean;
}

/** Goes on for ever, since the goal cannot be met: the switchover is held. */
const HELD: Partial<V86MigrationOptions> = { method: "delta", downtimeMsMax: 1 };
/** A stop-and-copy of whole pages that takes more than a second. */
const LONG_STOP: Partial<V86MigrationOptions> = {
  method: "standard",
  rate: "20mbit",
  limits: { ...PRECOPY_LIMITS, iterationsMax: 0 },
};
/** Time enough between the destination's last word and the source's. */
const LONG_WAY: Partial<V86MigrationOptions> = { method: "delta", delayMs: 100, downtimeMsMax: 1000 };

const BEFORE_COMMIT: Readonly<Record<string, Phase>> = {
  setup: {
    options: { method: "delta" },
    when: (act) => ({ onSource: once(isPhase("setup"), act) }),
  },
  "the first pass": {
    options: { method: "standard" },
    when: (act) => ({
      onSource: once(
        sampleWith(({ wireBytes }) => wireBytes > 1e6),
        act,
      ),
    }),
  },
  "later iterations, the switchover held": {
    options: HELD,
    when: (act) => ({
      onSource: once(
        sampleWith(({ iteration = 0 }) => iteration >= 5),
        act,
      ),
    }),
  },
  "the stop": {
    options: LONG_STOP,
    when: (act) => ({ onSource: once(isPhase("switchover"), act) }),
  },
  "stop-and-copy": {
    options: LONG_STOP,
    when: (act) => ({ onSource: afterwards(isPhase("switchover"), 400, act) }),
  },
  "the device state": {
    options: LONG_STOP,
    when: (act) => ({ onSource: once(({ type }) => type === "notice", act) }),
  },
  "everything loaded, and the source not told": {
    options: LONG_WAY,
    when: (act) => ({ onDestination: once(isPhase("switchover"), act) }),
    // What it has said before its death still arrives.
    isCommittedAfterDeath: true,
  },
};

/** What the destination does with a copy of a guest that runs on at the source. */
function expectGivenUp(result: V86MigrationResult, { destination }: Pair): void {
  if (result.destination === undefined) return; // killed
  expect(result.destination.outcome).not.toBe("completed");
  const { vm, welcomed } = result.destination;
  // A loaded copy whose source fell silent may be all that is left of the guest: it is kept, and stands still. One
  // to which nothing was sent can wait for another source.
  expect(destination.host.hasEnded).toBe(welcomed && vm !== "paused on destination");
}

describe.each(Object.entries(BEFORE_COMMIT))("in the phase: %s", (_name, phase) => {
  const { options, when, isCommittedAfterDeath = false } = phase;

  async function run(act: Act): Promise<{ pair: Pair; result: V86MigrationResult }> {
    const pair = await startPair("ws=4096 rate=5000 pattern=sparse fill=random");
    const disturbed = when(act);
    const result = await migrate({ ...pair, method: "delta", ...options, ...disturbed });
    return { pair, result };
  }

  test("the operator cancels: the guest goes on at the source", async () => {
    const { pair, result } = await run((migration) => {
      expect(migration.sourceEngine.cancel()).toBe(true);
    });
    await expectKept(result, pair);
    expectGivenUp(result, pair);
    expect(result.source).toMatchObject({ outcome: "cancelled", error: { code: "CANCELLED" } });
  });

  if (!isCommittedAfterDeath) {
    test("the destination is killed: the guest goes on at the source", async () => {
      const { pair, result } = await run((migration) => void migration.killDestination());
      await expectKept(result, pair);
      expect(result.source.outcome).toBe("failed");
    });
  }

  test("the link breaks: the guest goes on at the source", async () => {
    const { pair, result } = await run((migration) => migration.relay.cut());
    await expectKept(result, pair);
    expectGivenUp(result, pair);
    expect(result.source.outcome).toBe("failed");
  });
});

describe("once committed", () => {
  test("it is too late to cancel: the guest moves", async () => {
    const answers: boolean[] = [];
    const pair = await startPair();
    const result = await migrate({
      ...pair,
      ...LONG_WAY,
      method: "delta",
      onSource: once(isPhase("committed"), (migration) => answers.push(migration.sourceEngine.cancel())),
    });
    expect(answers).toEqual([false]);
    await expectMoved(result, pair);
  });

  test("a destination that dies leaves the guest paused at the source, for a person to decide", async () => {
    const { guest, source, destination } = await startPair();
    const result = await migrate({
      source,
      destination,
      ...LONG_WAY,
      method: "delta",
      onDestination: once(isPhase("switchover"), (migration) => void migration.killDestination()),
    });
    expect(result.source).toMatchObject({ outcome: "failed", vm: "unknown" });
    expect([...guest.running]).toEqual([]);
    expect(destination.lines).toEqual([]);
    // The person decides.
    await source.host.run();
    await source.waitForHeartbeats(3);
    expect(await source.verify()).toMatchObject({ ok: true });
    expect(guest.heartbeats).toEqual(guest.heartbeats.map((_, index) => index));
  });

  test("a link that breaks before COMMIT arrives leaves the guest paused on both sides, for a person to decide", async () => {
    const { guest, source, destination } = await startPair();
    const result = await migrate({
      source,
      destination,
      ...LONG_WAY,
      method: "delta",
      onSource: once(isPhase("committed"), (migration) => migration.relay.cut()),
    });
    expect(result.source).toMatchObject({ outcome: "failed", vm: "unknown" });
    expect(result.destination).toMatchObject({ outcome: "failed", vm: "paused on destination" });
    expect([...guest.running]).toEqual([]);
    // The person decides.
    await destination.host.run();
    await destination.waitForHeartbeats(3);
    expect(await destination.verify()).toMatchObject({ ok: true });
    expect(guest.heartbeats).toEqual(guest.heartbeats.map((_, index) => index));
  });

  test("a link that breaks after COMMIT has arrived: the guest runs at the destination, and only there", async () => {
    const pair = await startPair();
    const result = await migrate({
      ...pair,
      ...LONG_WAY,
      method: "delta",
      beforeResume: async ({ relay }) => relay.cut(),
    });
    expect(result.source).toMatchObject({ outcome: "failed", vm: "unknown" });
    expect(result.destination).toMatchObject({ outcome: "completed", vm: "running on destination" });
    await pair.destination.waitForHeartbeats(20);
    expect([...pair.guest.running]).toEqual([pair.destination.name]);
    expect(await pair.destination.verify()).toMatchObject({ ok: true });
    expect(pair.guest.violations).toEqual([]);
  });
});

describe("a guest that was kept", () => {
  test("moves whole at the next attempt, to another destination", async () => {
    const { guest, source, destination } = await startPair();
    const cancelled = await migrate({
      source,
      destination,
      method: "delta",
      ...HELD,
      onSource: once(
        sampleWith(({ iteration = 0 }) => iteration >= 2),
        ({ sourceEngine }) => void sourceEngine.cancel(),
      ),
    });
    await expectKept(cancelled, { guest, source, destination });
    await destination.die();
    const next = { guest, source, destination: await openVm(guest, 16) };
    await expectMoved(await migrate({ ...next, method: "delta" }), next);
  });
});

test("a VM that dies at the source is nobody's: it is not said to run anywhere", async () => {
  const { guest, source, destination } = await startPair();
  const result = await migrate({
    source,
    destination,
    method: "delta",
    onSource: once(
      sampleWith(({ wireBytes }) => wireBytes > 1e6),
      () => void source.die(),
    ),
  });
  expect(result.source).toMatchObject({ outcome: "failed", vm: "unknown" });
  expect(result.source.error?.message).toContain("disposed");
  expect(destination.lines).toEqual([]);
  expect(guest.running.size).toBe(0);
});

test("a VM that dies at the destination is told to the source, which keeps the guest", async () => {
  const pair = await startPair();
  const result = await migrate({
    ...pair,
    method: "delta",
    onSource: once(
      sampleWith(({ wireBytes }) => wireBytes > 1e6),
      () => void pair.destination.die(),
    ),
  });
  await expectKept(result, pair);
  expect(result.source.error?.message).toMatch(/Destination gave up \(HYPERVISOR_FAILED\)/);
});

test("a link that falls silent while the guest stands still: it goes on at the source", async () => {
  const pair = await startPair();
  const result = await migrate({
    ...pair,
    method: "standard",
    ...LONG_STOP,
    onSource: afterwards(isPhase("switchover"), 200, ({ relay }) => relay.stall()),
  });
  await expectKept(result, pair);
  expect(result.source.error?.code).toBe("LINK_TIMEOUT");
});

describe("a destination that cannot run the guest is refused before anything is sent", () => {
  test("other options of the VM", async () => {
    const pair = await startPair("ws=4096 rate=500", 16, 32);
    const result = await migrate({ ...pair, method: "delta" });
    await expectKept(result, pair);
    expect(result.source.error).toMatchObject({ code: "HYPERVISOR_INCOMPATIBLE" });
    expect(result.source.error?.message).toMatch(/memoryBytes=16777216.*memoryBytes=33554432/);
    expect(result.linkBytes).toBeLessThan(1000);
    expect(result.destination).toMatchObject({ outcome: "failed", error: { code: "PROTOCOL_REFUSED" } });
  });

  test("another version of v86", async () => {
    const pair = await startPair("ws=4096 rate=500");
    const { compatibility } = pair.destination.host;
    const result = await migrate({
      ...pair,
      method: "delta",
      destinationIdentity: {
        kind: "v86",
        version: "0.5.461",
        compatibility: compatibility.replace("v86=0.5.462", "v86=0.5.461"),
      },
    });
    await expectKept(result, pair);
    expect(result.source.error).toMatchObject({ code: "HYPERVISOR_INCOMPATIBLE" });
    expect(result.source.error?.message).toMatch(/v86=0\.5\.462.*v86=0\.5\.461/);
  });

  test("another hypervisor", async () => {
    const pair = await startPair("ws=4096 rate=500");
    const destinationIdentity = { kind: "qemu" as const, version: "10.0.2" };
    const result = await migrate({ ...pair, method: "delta", destinationIdentity });
    await expectKept(result, pair);
    expect(result.source.error?.message).toContain("v86 0.5.462, destination's qemu 10.0.2");
  });

  test("or, when it has not told the truth, by its loader", async () => {
    const pair = await startPair("ws=4096 rate=500", 16, 32);
    const { compatibility } = pair.source.host;
    const result = await migrate({
      ...pair,
      method: "delta",
      destinationIdentity: { kind: "v86", version: "0.5.462", compatibility },
    });
    await expectKept(result, pair);
    expect(result.source.error?.message).toMatch(/RAM of the source \(ram 16777216\) is not that of this VM/);
  });
});

type When = (event: RecordEvent) => boolean;
type Listener = (event: RecordEvent, migration: V86Migration) => void;

function isPhase(phase: string): When {
  return (event) => event.type === "phase" && event.phase === phase;
}

function sampleWith(matches: (sample: Extract<RecordEvent, { type: "sample" }>) => boolean): When {
  return (event) => event.type === "sample" && matches(event);
}

function once(when: When, act: Act): Listener {
  let done = false;
  return (event, migration) => {
    if (done || !when(event)) return;
    done = true;
    act(migration);
  };
}

function afterwards(when: When, delayMs: number, act: Act): Listener {
  return once(when, (migration) => void setTimeout(() => act(migration), delayMs));
}
