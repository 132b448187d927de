// A guest at work moves through Deltavee in either mode, QEMU 10.0 at both ends: it counts on, its memory is
// equal page by page, less crosses the link than QEMU handed over, and it stands still for little longer than
// QEMU says.
//
// The source is 10.0 wherever memory must be equal: stock QEMU 7.2 loses page updates of its own under TCG
// (compatibility.test.ts).

import { describe, expect, test } from "vitest";
import type { MigrationCapability } from "../../src/hypervisor/qemu/qmp-types.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import {
  ALL_PAGES_EQUAL,
  compareMemory,
  eventsOf,
  expectMoved,
  HEAVY_LOAD,
  LIGHT_LOAD,
  migration,
  startPair,
  summaryOf,
  TEXT_LOAD,
} from "./scene.ts";

const qemu10 = findQemus().get("10.0");
const modes = ["direct", "tunnel"] as const;

describe.skipIf(qemu10 === undefined)("a migration of QEMU 10.0 to 10.0", () => {
  const binary = qemu10!;

  describe.each(modes)("%s", (mode) => {
    test("under load the guest arrives whole and counts on, by deltas", async () => {
      const { source, destination } = await startPair({ binary, append: HEAVY_LOAD });
      await source.qmp.execute("migrate-set-parameters", { "downtime-limit": 123 });
      const capabilitiesBefore = await source.qmp.execute("query-migrate-capabilities");
      const parametersBefore = await source.qmp.execute("query-migrate-parameters");

      const running = await migration({ mode, source, destination });
      const { migrate, receive, link, events, recordNotices } = await running.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      if (mode === "tunnel") expect(receive).toEqual({ code: 0, signal: null, stderr: "" });
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });

      expect(recordNotices).toEqual([]);
      const summary = summaryOf(events);
      expect(summary).toMatchObject({ outcome: "completed", vm: "with the destination" });
      expect(summary.pages.deltaPages).toBeGreaterThan(0);
      expect(summary.iterations).toBeGreaterThanOrEqual(2);
      expect(summary.wireBytes).toBeLessThan(summary.handedOverBytes);
      expect(link).toMatchObject({ bytesForward: summary.wireBytes, connectionsTotal: 1 });
      const phases = eventsOf(events, "phase").map(({ phase }) => phase);
      expect(phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
      expect(eventsOf(events, "opaque")).toEqual([]);

      expect(await source.qmp.execute("query-migrate-capabilities")).toEqual(capabilitiesBefore);
      expect(await source.qmp.execute("query-migrate-parameters")).toEqual(parametersBefore);
    });

    test.each([
      ["sparse", HEAVY_LOAD],
      ["text", TEXT_LOAD],
    ])("under a load of pattern %s every page of RAM is equal", async (_pattern, append) => {
      const { source, destination } = await startPair(
        { binary, append },
        // A stock destination runs the guest on arrival unless told not to; so does `receive`.
        mode === "direct" ? { paused: true } : {},
      );
      const receiveArguments = ["--paused"];
      const { migrate, events } = await (
        await migration({ mode, source, destination, receiveArguments })
      ).finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      expect(summaryOf(events).iterations).toBeGreaterThanOrEqual(2);
      expect(await compareMemory(source, destination)).toEqual(ALL_PAGES_EQUAL);

      await destination.qmp.execute("cont");
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    });

    test("a guest that is paused at the source arrives paused and equal", async () => {
      const { source, destination } = await startPair({ binary, append: LIGHT_LOAD });
      await source.qmp.execute("stop");
      const { migrate, events } = await (await migration({ mode, source, destination })).finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      expect(summaryOf(events)).toMatchObject({ outcome: "completed", vm: "paused on destination" });
      expect(await destination.qmp.execute("query-status")).toEqual({ status: "paused", running: false });
      expect(await compareMemory(source, destination)).toEqual(ALL_PAGES_EQUAL);
      await destination.qmp.execute("cont");
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true });
    });

    test("a guest that is paused in the middle of it arrives paused and equal", async () => {
      const { source, destination } = await startPair({ binary, append: LIGHT_LOAD });
      const running = await migration({ mode, source, destination });
      await running.waitForWireBytes(8e6);
      await source.qmp.execute("stop");
      const { migrate, events } = await running.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      expect(summaryOf(events)).toMatchObject({ outcome: "completed", vm: "paused on destination" });
      expect(await destination.qmp.execute("query-status")).toEqual({ status: "paused", running: false });
      expect(await compareMemory(source, destination)).toEqual(ALL_PAGES_EQUAL);
      await destination.qmp.execute("cont");
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true });
    });

    test("capabilities that would take RAM out of the stream are off during it, and on again after", async () => {
      const { source, destination } = await startPair({ binary, append: LIGHT_LOAD });
      const asked: MigrationCapability[] = ["multifd", "pause-before-switchover"];
      const capabilities = asked.map((capability) => ({ capability, state: true }));
      await source.qmp.execute("migrate-set-capabilities", { capabilities });
      const { migrate, events } = await (await migration({ mode, source, destination })).finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      const notices = eventsOf(events, "notice").map(({ message }) => message);
      for (const capability of asked) {
        expect(notices.filter((message) => message.includes(capability))).toHaveLength(1);
      }
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true });
      expect(await source.qmp.execute("query-migrate-capabilities")).toEqual(
        expect.arrayContaining(capabilities),
      );
    });

    test("on a link of 20 Mbit/s the guest stands still for little longer than QEMU says", async () => {
      const { source, destination } = await startPair({ binary, append: LIGHT_LOAD });
      const running = await migration({ mode, source, destination, rate: "20mbit", delay: "10ms" });
      const { migrate, events } = await running.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      const { gapMs } = await expectMoved(source, destination);
      const { downtimeMs = Number.NaN, downtimeMsReported = Number.NaN } = summaryOf(events);
      console.log(
        `${mode}, 20 Mbit/s: heartbeat gap ${gapMs.toFixed(0)} ms, measured by migrate ` +
          `${downtimeMs.toFixed(0)} ms, by QEMU's own account ${downtimeMsReported} ms`,
      );
      // Generous, as the machine may be busy: what is looked for here are the seconds of a queue nobody bounds.
      expect(gapMs).toBeLessThan(downtimeMsReported + 2000);
    });
  });
});
