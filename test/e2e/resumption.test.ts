// A tunnel whose link is gone for some seconds, between two real QEMUs: while the guest works it notices nothing,
// while it stands still it stands still for as long, or goes on at the source if that becomes too long.

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { Authority, writeTlsFolder } from "../support/certificates.ts";
import { ended } from "../support/migration.ts";
import { runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { BreakableLink } from "./breakable-link.ts";
import { eventsOf, expectMoved, expectStillOnSource, LIGHT_LOAD, startPair } from "./scene.ts";

const qemu10 = findQemus().get("10.0");
const moved = { code: 0, signal: null, stderr: "" };
const SAMPLE_TIMEOUT_MS = 180_000;

describe.skipIf(qemu10 === undefined)("a tunnel whose link is gone for a while", () => {
  test.each(["plain text", "TLS"])(
    "twice while the guest works: it arrives whole, and nobody has noticed (%s)",
    async (kind) => {
      const { source, destination } = await startPair({ binary: qemu10!, append: LIGHT_LOAD });
      const security = kind === "TLS" ? ["--tls-dir", tlsFolder()] : [];
      const link = await BreakableLink.between(source, destination, "50mbit", 1, [], security);
      await link.waitForWireBytes(4e6);
      await link.breakFor(2000);
      await link.waitForWireBytes(10e6);
      await link.breakFor(3000);
      const { migrate, receive, events } = await link.finish();
      expect(migrate).toEqual(moved);
      expect(receive).toEqual(moved);
      const gap = await expectMoved(source, destination);
      // The outages are not in it.
      expect(gap.gapMs).toBeLessThan(2000);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
      const resumed = eventsOf(events, "link").filter(({ state }) => state === "resumed");
      expect(resumed).toHaveLength(2);
      expect(resumed[0]!.outageMs).toBeGreaterThan(1500);
      expect(resumed[1]!.outageMs).toBeGreaterThan(2500);
    },
  );

  // 64 MiB: from the stop of the vCPUs to the guest's next beat some 60 ms pass on this link.
  const options = { binary: qemu10!, memoryMiB: 64, append: "ws=2048 rate=1000 fill=random" };

  test.each([0, 40])(
    "for two seconds, %i ms after the vCPUs have stopped: the guest moves all the same",
    async (afterMs) => {
      const { source, destination } = await startPair(options);
      const stopped = source.qmp.waitForEvent("STOP", () => true, SAMPLE_TIMEOUT_MS);
      const link = await BreakableLink.between(source, destination, "20mbit", 20);
      await stopped;
      await sleep(afterMs);
      await link.breakFor(2000);
      const { migrate, receive, events } = await link.finish();
      expect(migrate).toEqual(moved);
      expect(receive).toEqual(moved);
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
      expect(eventsOf(events, "link").map(({ state }) => state)).toEqual(["lost", "resumed"]);
    },
  );

  test("for good, when the vCPUs have just stopped: the guest goes on at the source within --switchover-timeout", async () => {
    const { source, destination } = await startPair(options);
    const stopped = source.qmp.waitForEvent("STOP", () => true, SAMPLE_TIMEOUT_MS);
    const resumed = source.qmp.waitForEvent("RESUME", () => true, SAMPLE_TIMEOUT_MS);
    const link = await BreakableLink.between(source, destination, "20mbit", 20);
    await stopped;
    const stoppedMs = performance.now();
    await link.close();
    await resumed;
    expect(performance.now() - stoppedMs).toBeLessThan(30_000);
    const { migrate, receive } = await link.finish();
    expect(migrate).toMatchObject({ code: 1 });
    expect(migrate.stderr).toMatch(/^deltavee: LINK_LOST: /);
    expect(migrate.stderr).toContain("the VM is: running on source");
    expect(receive).toMatchObject({ code: 1 });
    expect(receive.stderr).toMatch(/^deltavee: LINK_LOST: /);
    await expectStillOnSource(source, destination);
  });

  test("a stock QEMU cannot resume: to ask for it is wrong usage", async () => {
    for (const option of ["--reconnect-timeout", "--switchover-timeout"]) {
      const run = await runCli(["migrate", "--qmp", "/nowhere", "--to", "tcp:127.0.0.1:1", option, "5s"]);
      expect(await ended(run)).toMatchObject({ code: 2, stderr: expect.stringContaining("USAGE") });
    }
  });
});

/** Certificates for both sides, which are both here. */
function tlsFolder(): string {
  const { path, remove } = tempFolder();
  onTestFinished(remove);
  const authority = new Authority();
  return writeTlsFolder(path, authority, authority.issue(["127.0.0.1"]));
}
