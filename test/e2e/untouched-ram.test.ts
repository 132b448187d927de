// Zeros of a guest that its destination holds already, since the QEMU there has never touched that RAM: they are left
// out, and what arrives is compared with what there was, page by page. QEMU 10.0, since 7.2 loses page updates of its own
// under TCG (compatibility.test.ts).

import { describe, expect, test } from "vitest";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuOptions } from "../support/qemu-vm.ts";
import { eventsOf, expectMoved, migration, startPair, summaryOf } from "./scene.ts";

/** 32 MiB of 256: of the rest nothing was ever written. */
const APPEND = "ws=32768 rate=1000 pattern=zero fill=random";
const ZERO_PAGES_MIN = 40_000;
/** What each record of a page of zeros takes of the hypervisor's stream. */
const RECORD_BYTES = 9;

const binary = findQemus().get("10.0");

async function move(destinationOptions: Partial<QemuOptions>, rate: string) {
  const { source, destination } = await startPair({ binary: binary!, append: APPEND }, destinationOptions);
  const migrateArguments = ["--verify"];
  const running = await migration({ mode: "tunnel", source, destination, rate, migrateArguments });
  const { migrate, events, link } = await running.finish();
  expect(migrate).toMatchObject({ code: 0 });
  await expectMoved(source, destination);
  expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  const said = eventsOf(events, "decision").filter(({ choice }) => choice === "leave out zeros");
  return { said, summary: summaryOf(events), link };
}

describe.skipIf(binary === undefined)("a destination", () => {
  test.each(["1gbit", "50mbit"])(
    "that has touched nothing is not sent zeros, whether pages are looked at or not: over %s",
    async (rate) => {
      const { said, summary } = await move({}, rate);
      expect(said).toHaveLength(1);
      expect(summary.pages.zeroPages).toBeGreaterThan(ZERO_PAGES_MIN);
    },
  );

  test("whose RAM was allocated in advance is sent all", async () => {
    const { said, summary, link } = await move({ extraArguments: ["-mem-prealloc"] }, "1gbit");
    expect(said).toEqual([]);
    expect(summary.pages.zeroPages).toBeGreaterThan(ZERO_PAGES_MIN);
    expect(link.bytesForward).toBeGreaterThan(ZERO_PAGES_MIN * RECORD_BYTES);
  });
});
