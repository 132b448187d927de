// What goes wrong beside the faults of v86-faults.test.ts: what is left of a connection that breaks when everything has
// been said, a next attempt, and destinations that cannot run the guest.

import { describe, expect, test } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import type { V86Migration, V86MigrationOptions } from "../support/v86-migration.ts";
import { expectKept, expectMoved, migrate, openVm, startPair } from "./v86-scene.ts";

type Act = (migration: V86Migration) => void;

/** Goes on for ever, since the goal cannot be met: the switchover is held. */
const HELD: Partial<V86MigrationOptions> = { method: "delta", downtimeMsMax: 1 };
/** Time enough between the destination's last word and the source's. */
const LONG_WAY: Partial<V86MigrationOptions> = { method: "delta", delayMs: 100, downtimeMsMax: 1000 };

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
