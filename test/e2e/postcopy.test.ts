// A guest that writes faster than the link takes never converges; allowed to, Deltavee switches it over to post-copy.
// It then runs at the destination at once, whole, and its RAM follows. Between stock QEMUs, in both modes.
//
// Memory is judged where the source is 10.0: stock QEMU 7.2 loses page updates of its own under TCG, in post-copy on
// every run and without Deltavee too (docs/decisions/0014-postcopy.md).

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import { ALL_CASES } from "../support/all-cases.ts";
import type { Mode } from "../support/migration.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { BreakableLink } from "./breakable-link.ts";
import {
  eventsOf,
  expectMoved,
  expectStillOnSource,
  goOnWithEachOther,
  migration,
  NOISE_LOAD,
  startPair,
  summaryOf,
} from "./scene.ts";

/** 16 MB/s of text, which direct mode cannot make less, over 12.5 MB/s. */
const DENSE_LOAD = "ws=32768 rate=4000 pattern=text fill=text";
const PC_OF_72 = "pc-i440fx-7.2";
const ARGUMENTS = ["--on-stall", "postcopy", "--max-downtime", "100ms"];

const qemus = findQemus();
const [qemu72, qemu10] = [qemus.get("7.2"), qemus.get("10.0")];
const MODES = ["direct", "tunnel"] as const;
/** Of those of other versions one mode each, which are both QEMU's business and ours once. */
const pairs = [
  { name: "10.0 to 10.0", from: qemu10, to: qemu10, machine: "pc", modes: MODES },
  { name: "10.0 to 7.2", from: qemu10, to: qemu72, machine: PC_OF_72, modes: someModes("direct") },
  { name: "7.2 to 7.2", from: qemu72, to: qemu72, machine: PC_OF_72, modes: someModes("tunnel") },
];

/** For a guest of huge pages at each end. */
const HUGE_MIB = 64;
const whyNoHugePages = hugePagesMissing();

function hugePagesMissing(): string | undefined {
  const free = Number(/HugePages_Free: +(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
  if (free * 2 >= 2 * HUGE_MIB) return undefined;
  const why = `sysctl vm.nr_hugepages=${HUGE_MIB} gives them`;
  console.warn(`The post-copy of a guest in huge pages is left out: ${why}`);
  return why;
}

function someModes(mode: Mode): readonly Mode[] {
  return ALL_CASES ? MODES : [mode];
}

async function allowPostcopy(vm: QemuVm): Promise<void> {
  await vm.qmp.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "postcopy-ram", state: true }],
  });
}

describe.each(pairs)("post-copy from QEMU $name", ({ from, to, machine, modes }) => {
  const isHere = from !== undefined && to !== undefined;

  test.skipIf(!isHere).each(modes)(
    "%s: a guest that never converges goes on at the destination, and all of it follows",
    async (mode) => {
      const append = mode === "direct" ? DENSE_LOAD : NOISE_LOAD;
      const { source, destination } = await startPair({ binary: from!, append, machine }, { binary: to! });
      // The other end of a tunnel does it.
      if (mode === "direct") await allowPostcopy(destination);
      const running = await migration({ mode, source, destination, migrateArguments: ARGUMENTS });
      const { migrate, events } = await running.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });

      const summary = summaryOf(events);
      expect(summary).toMatchObject({ outcome: "completed", vm: "with the destination" });
      // Deltas and unchanged pages until then, asked-for pages from then on.
      expect(summary.pages.deltaPages + summary.pages.unchangedPages).toBeGreaterThan(0);
      expect(summary.requestedBytes).toBeGreaterThan(0);
      expect(eventsOf(events, "opaque")).toEqual([]);
      expect(eventsOf(events, "decision").map(({ choice }) => choice)).toContain("postcopy");
      const phases = eventsOf(events, "phase").map(({ phase }) => phase);
      expect(phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
      const { downtimeMs = Number.NaN, postcopyMs = Number.NaN, requestedBytes } = summary;
      console.log(
        `downtime ${downtimeMs.toFixed(0)} ms, then ${postcopyMs.toFixed(0)} ms of post-copy, ` +
          `${requestedBytes} bytes asked for of ${summary.wireBytes} sent`,
      );
      // Stopping and copying some 30 MB would take 2.7 s.
      expect(downtimeMs).toBeLessThan(2000);

      if (mode === "tunnel") {
        // For this migration only: the next one from there would ask it of its own destination.
        const capabilities = await destination.qmp.execute("query-migrate-capabilities");
        expect(capabilities).toContainEqual({ capability: "postcopy-ram", state: false });
      }

      if (from !== qemu10) return;
      const { gapMs } = await expectMoved(source, destination);
      console.log(`heartbeat gap ${gapMs.toFixed(0)} ms`);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    },
  );
});

describe.skipIf(qemu10 === undefined)("post-copy of QEMU 10.0", () => {
  test.skipIf(whyNoHugePages !== undefined).each(MODES)(
    "%s: a guest in huge pages gains what others do, and goes as they do",
    async (mode) => {
      const memory = `memory-backend-memfd,id=huge,size=${HUGE_MIB}M,hugetlb=on,hugetlbsize=2M,prealloc=on`;
      const { source, destination } = await startPair({
        ...{ binary: qemu10!, append: mode === "direct" ? DENSE_LOAD : NOISE_LOAD, memoryMiB: HUGE_MIB },
        extraArguments: ["-object", memory, "-machine", "memory-backend=huge"],
      });
      if (mode === "direct") await allowPostcopy(destination);
      const running = await migration({ mode, source, destination, migrateArguments: ARGUMENTS });
      const { migrate, events } = await running.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      expect(eventsOf(events, "opaque")).toEqual([]);
      expect(eventsOf(events, "decision").map(({ choice }) => choice)).toContain("postcopy");
      const { pages } = summaryOf(events);
      expect(pages.deltaPages + pages.unchangedPages).toBeGreaterThan(0);
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    },
  );

  test("when the link breaks in it both QEMUs keep what they have, and go on with each other", async () => {
    const { source, destination } = await startPair({ binary: qemu10!, append: DENSE_LOAD });
    await allowPostcopy(destination);
    // Slow enough for the end not to come before the link has broken.
    const rate = "40mbit";
    const running = await migration({
      mode: "direct",
      source,
      destination,
      rate,
      migrateArguments: ARGUMENTS,
    });
    await running.migrate.stdout.waitFor(({ text }) => text.includes('"requestedBytes":'), "post-copy", {
      timeoutMs: 240_000,
    });
    await running.relay.stop();
    const { code } = await running.migrate.exited;
    expect(code).toBe(1);
    expect(running.migrate.stderrTail()).toContain("POSTCOPY_INTERRUPTED");
    await goOnWithEachOther(source, destination);
  });

  describe("in a tunnel, when the link breaks in it", () => {
    const isFetching = (event: RecordEvent) => event.type === "sample" && (event.requestedBytes ?? 0) > 0;

    async function fetching() {
      const { source, destination } = await startPair({ binary: qemu10!, append: NOISE_LOAD });
      // Slow enough for the end not to come before the link has broken.
      const link = await BreakableLink.between(source, destination, "40mbit", 1, ARGUMENTS);
      await link.waitFor(isFetching, "post-copy");
      return { source, destination, link };
    }

    test("and comes back: the guest moves whole, and neither QEMU has noticed", async () => {
      const { source, destination, link } = await fetching();
      await link.breakFor(2000);
      // QEMU says of itself when it has.
      expect(await source.qmp.execute("query-migrate")).toMatchObject({ status: "postcopy-active" });
      const { migrate, receive, events } = await link.finish();
      expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
      expect(receive).toEqual({ code: 0, signal: null, stderr: "" });
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
      expect(eventsOf(events, "link").map(({ state }) => state)).toEqual(["lost", "resumed"]);
      expect(summaryOf(events).downtimeMs).toBeLessThan(2000);
    });

    test("for good, before the destination could run it: the guest goes on at the source", async () => {
      const { source, destination } = await startPair({ binary: qemu10!, append: NOISE_LOAD });
      // READY takes a round trip, and the device state some time.
      const link = await BreakableLink.between(source, destination, "40mbit", 100, ARGUMENTS);
      await link.waitFor((event) => event.type === "phase" && event.phase === "switchover", "the stop");
      await link.close();
      const { migrate } = await link.finish();
      expect(migrate.stderr).toMatch(/^deltavee: LINK_LOST: /);
      expect(migrate.stderr).toContain("the VM is: running on source");
      await expectStillOnSource(source, destination);
    });

    test("for good: both sides say so, and the QEMUs go on with each other", async () => {
      const { source, destination, link } = await fetching();
      await link.close();
      const { migrate, receive } = await link.finish();
      expect([migrate.code, receive.code]).toEqual([1, 1]);
      expect(migrate.stderr).toContain("POSTCOPY_INTERRUPTED");
      expect(receive.stderr).toContain("POSTCOPY_INTERRUPTED");
      expect(receive.stderr).toContain("the VM is: running on destination");
      await goOnWithEachOther(source, destination);
    });
  });

  test("a destination that was not told fails at once, and the guest goes on at the source", async () => {
    const { source, destination } = await startPair({ binary: qemu10!, append: DENSE_LOAD });
    const running = await migration({ mode: "direct", source, destination, migrateArguments: ARGUMENTS });
    expect((await running.migrate.exited).code).toBe(1);
    expect(running.migrate.stderrTail()).toContain("postcopy-ram");
    expect(await source.qmp.execute("query-status")).toEqual({ status: "running", running: true });
  });
});
