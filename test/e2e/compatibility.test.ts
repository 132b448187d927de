// QEMU 7.2 and 10.0 in every combination, and streams with something in them that Deltavee does not read: it
// then carries them as they are, and the migration succeeds all the same.
//
// A source of 7.2 is asked only for what holds there. Stock QEMU 7.2 under TCG loses page updates of its own: of
// 13 plain migrations without Deltavee 7 arrived with stale pages, some with a guest that had crashed by it; of
// 10.0 none did. What a guest of 7.2 finds in its memory proves nothing about Deltavee.

import { describe, expect, test } from "vitest";
import { findQemus } from "../support/qemu-binaries.ts";
import { eventsOf, expectMoved, LIGHT_LOAD, migration, startPair, summaryOf } from "./scene.ts";

const qemus = findQemus();
const [qemu7, qemu10] = [qemus.get("7.2"), qemus.get("10.0")];
const modes = ["direct", "tunnel"] as const;
const moved = { code: 0, signal: null, stderr: "" };
/** The newest that both know. */
const MACHINE = "pc-i440fx-7.2";

describe.skipIf(qemu7 === undefined || qemu10 === undefined)("between versions of QEMU", () => {
  const pairs = [
    ["7.2", qemu7!, "10.0", qemu10!],
    ["10.0", qemu10!, "7.2", qemu7!],
    ["7.2", qemu7!, "7.2", qemu7!],
  ] as const;

  describe.each(modes)("%s", (mode) => {
    test.each(pairs)("%s to %4$s", async (sourceName, binary, _destinationName, destinationBinary) => {
      const { source, destination } = await startPair(
        { binary, machine: MACHINE, append: LIGHT_LOAD },
        { binary: destinationBinary },
      );
      const { migrate, events } = await (await migration({ mode, source, destination })).finish();
      expect(migrate).toEqual(moved);
      expect(summaryOf(events).pages.deltaPages).toBeGreaterThan(0);
      expect(eventsOf(events, "opaque")).toEqual([]);
      await expectMoved(source, destination);
      if (sourceName === "10.0") {
        expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
      }
    });
  });
});

describe.skipIf(qemu10 === undefined)("a stream that Deltavee does not read to its end", () => {
  const binary = qemu10!;

  // It sends a device section before RAM, which says nothing of its own length.
  const virtioMem = [
    ...["-object", "memory-backend-ram,id=plugged,size=64M"],
    ...["-device", "virtio-mem-pci,memdev=plugged,requested-size=0"],
  ];

  test.each(modes)("%s: is carried as it is, and the guest arrives whole", async (mode) => {
    const { source, destination } = await startPair({
      binary,
      append: LIGHT_LOAD,
      extraArguments: ["-m", "maxmem=512M,slots=2", ...virtioMem],
    });
    const { migrate, events, link } = await (await migration({ mode, source, destination })).finish();
    console.log(JSON.stringify(events.filter((e) => e.type !== "sample" && e.type !== "iteration")), link);
    expect(migrate).toEqual(moved);
    const opaque = eventsOf(events, "opaque");
    expect(opaque).toHaveLength(1);
    expect(opaque[0]!.reason).toMatch(/virtio-mem/);
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  });
});
