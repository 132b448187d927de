// A guest with page tables, interrupts, a scheduler and a timekeeper of its own moves as well as the bare one.

import { describe, expect, test } from "vitest";
import { linuxGuest } from "../support/linux-guest.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { expectMoved, migration, startPair, summaryOf } from "./scene.ts";

const qemu10 = findQemus().get("10.0");
const guest = qemu10 === undefined ? undefined : linuxGuest("ws=32768 rate=2000 pattern=sparse fill=random");

describe.skipIf(guest === undefined)("Linux under QEMU 10.0", () => {
  test.each(["direct", "tunnel"] as const)("%s: arrives whole and counts on", async (mode) => {
    const { source, destination } = await startPair({ binary: qemu10!, ...guest! });
    const { migrate, events } = await (await migration({ mode, source, destination })).finish();
    expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
    const { gapMs } = await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    expect(summaryOf(events).pages.deltaPages).toBeGreaterThan(0);
    console.log(`Linux, ${mode}, 100 Mbit/s: heartbeat gap ${gapMs.toFixed(0)} ms`);
  });
});
