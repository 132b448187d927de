// A goal that cannot be kept, with real QEMUs: the guest rewrites its memory faster than the link carries it. What the
// operator's policy says is done, it is said why, and afterwards the guest is whole and nothing of QEMU's is changed.

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import type { Migration, MigrationOptions } from "../support/migration.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { heartbeatsOf } from "../support/serial.ts";
import { eventsOf, expectMoved, expectStillOnSource, migration, startPair, summaryOf } from "./scene.ts";

/** 16 MiB, of which nothing stays as it was for longer than it takes to send it. */
const DENSE_LOAD = "ws=16384 busy=1 pattern=page fill=random";
/** Too much for the goal over `slowableRate` as it comes, and not once the guest is slow. */
const SLOWABLE_LOAD = "ws=24576 busy=1 pattern=page fill=random";
const GAVE_UP = 3;
const PAGE_BYTES = 4096;

const binary = findQemus().get("10.0");

async function run(
  mode: "direct" | "tunnel",
  migrateArguments: string[],
  during: (running: Migration, source: QemuVm) => Promise<void> = async () => {},
  { append, rateFor }: { append: string; rateFor?: (source: QemuVm) => Promise<string> } = {
    append: DENSE_LOAD,
  },
) {
  const { source, destination } = await startPair({ binary: binary!, append });
  const settings = async () => [
    await source.qmp.execute("query-migrate-capabilities"),
    await source.qmp.execute("query-migrate-parameters"),
  ];
  const settingsBefore = await settings();
  const rate = await rateFor?.(source);
  const options: MigrationOptions = {
    ...{ mode, source, destination, migrateArguments },
    ...(rate !== undefined && { rate }),
  };
  const running = await migration(options);
  await during(running, source);
  const { migrate, events } = await running.finish();
  expect(await settings()).toEqual(settingsBefore);
  const said = eventsOf(events, "decision").filter(({ subject }) => subject === "convergence");
  return { source, destination, migrate, events, said };
}

function throttled(events: readonly RecordEvent[]): boolean {
  return eventsOf(events, "decision").some(({ choice }) => choice.startsWith("throttle "));
}

/** Pages that the guest writes in a second. */
async function writeRate({ serial }: QemuVm): Promise<number> {
  const written = () => heartbeatsOf(serial.lines).at(-1)!.pagesWritten;
  const before = written();
  await sleep(1000);
  return written() - before;
}

/**
 * A quarter of what the guest writes, so that it has to be slowed down however slow the machine is, and at most so much
 * that all of its 24 MiB take longer than a goal of 300 ms.
 */
async function slowableRate(source: QemuVm): Promise<string> {
  const writtenBits = (await writeRate(source)) * PAGE_BYTES * 8;
  return `${Math.floor(Math.min(400e6, writtenBits / 4) / 1e6)}mbit`;
}

describe.skipIf(binary === undefined)("a guest that dirties memory faster than it can be sent", () => {
  test.each(["direct", "tunnel"] as const)("is given up with policy abort, %s", async (mode) => {
    const { source, migrate, events, said } = await run(mode, [
      ...["--max-downtime", "50ms", "--on-stall", "abort"],
    ]);
    expect(migrate.code).toBe(GAVE_UP);
    expect(migrate.stderr).toContain("NOT_CONVERGING");
    expect(migrate.stderr).toContain("the VM is: running on source");
    expect(summaryOf(events)).toMatchObject({ outcome: "failed", vm: "running on source" });
    expect(said.map(({ choice }) => choice)).toContain("abort");
    expect(said.at(-1)).toMatchObject({
      choice: "give up",
      reason: expect.stringContaining("the guest dirties"),
    });
    await expectStillOnSource(source);
  });

  test("is given up when its time is over, and it was said before that it would be", async () => {
    const { source, migrate, said } = await run("direct", ["--max-downtime", "50ms", "--max-time", "20s"]);
    expect(migrate.code).toBe(GAVE_UP);
    expect(migrate.stderr).toContain("MAX_TIME_REACHED");
    const foretold = said.find(({ reason }) => reason.startsWith("--max-time 20.0 s will not be kept"));
    expect(foretold!.atMs).toBeLessThan(said.at(-1)!.atMs - 500);
    await expectStillOnSource(source);
  });

  test("is slowed down with policy throttle until it has moved within the goal", async () => {
    const { source, destination, migrate, events } = await run(
      "tunnel",
      ["--max-downtime", "300ms", "--on-stall", "throttle", "--max-time", "280s"],
      async (running) => {
        await running.migrate.stdout.waitFor(
          ({ text }) => text.includes('"switchover","reason"'),
          "switchover",
          {
            timeoutMs: 300_000,
          },
        );
      },
      { append: SLOWABLE_LOAD, rateFor: slowableRate },
    );
    expect(migrate).toMatchObject({ code: 0 });
    expect(throttled(events)).toBe(true);
    await expectMoved(source, destination);
    expect(summaryOf(events).forecastDowntimeMs).toBeLessThanOrEqual(300);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  });

  test.each(["direct", "tunnel"] as const)(
    "is stopped at the next best moment when its operator lets any downtime do, %s",
    async (mode) => {
      const { source, destination, migrate, said } = await run(
        mode,
        ["--max-downtime", "50ms"],
        async (running) => {
          const isThirdPass = ({ text }: { text: string }) =>
            /"type":"iteration",.*"iteration":3,/.test(text);
          await running.migrate.stdout.waitFor(isThirdPass, "iterations", { timeoutMs: 180_000 });
          running.migrate.kill("SIGUSR2");
        },
      );
      expect(migrate).toMatchObject({ code: 0 });
      expect(said.at(-1)).toMatchObject({
        choice: "switchover",
        reason: expect.stringContaining("the operator lets any downtime do"),
      });
      await expectMoved(source, destination);
      expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    },
  );

  test("has all of its time again when a migration that had slowed it down is given up", async () => {
    let before = 0;
    const { source, migrate, events } = await run(
      "direct",
      ["--max-downtime", "50ms", "--on-stall", "throttle"],
      async (running, guest) => {
        before = await writeRate(guest);
        await running.migrate.stdout.waitFor(({ text }) => text.includes('"throttle 80 %"'), "throttling", {
          timeoutMs: 180_000,
        });
        running.migrate.kill("SIGINT");
      },
    );
    expect(migrate.code).toBe(130);
    expect(throttled(events)).toBe(true);
    await expectStillOnSource(source);
    // At 80 % it would be a fifth.
    expect(await writeRate(source)).toBeGreaterThan(before / 3);
  });
});
