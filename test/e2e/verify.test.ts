// `--verify` between real hypervisors: all RAM is compared while the guest stands still, and a page that is another one
// at the destination keeps the guest at the source.

import { closeSync, openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import {
  eventsOf,
  expectMoved,
  expectStillOnSource,
  LIGHT_LOAD,
  MEMORY_MIB,
  migration,
  startPair,
  summaryOf,
} from "./scene.ts";
import { expectMoved as expectMovedV86, migrate, startPair as startPairV86 } from "./v86-scene.ts";

const MIB = 1024 * 1024;
/** In RAM that the guest does not use: it has arrived with the first pass, and does not come again. */
const UNUSED_AT = 200 * MIB;
const qemu10 = findQemus().get("10.0");

test("an embedded guest is compared and moves", async () => {
  const pair = await startPairV86();
  const result = await migrate({ ...pair, method: "delta", verify: true });
  await expectMovedV86(result, pair);
  const { memoryBytes } = pair.source.host;
  expect(eventsOf(result.sourceEvents, "verified")).toMatchObject([
    { comparedBytes: memoryBytes, leftOut: [] },
  ]);
});

describe.skipIf(qemu10 === undefined)("between two QEMUs 10.0", () => {
  const options = {
    mode: "tunnel" as const,
    migrateArguments: ["--verify"],
  };

  test("a guest at work is compared and moves, and the standstill for it is in the record", async () => {
    const { source, destination } = await startPair({ binary: qemu10!, append: LIGHT_LOAD });
    const { migrate: ended, events } = await (await migration({ ...options, source, destination })).finish();
    expect(ended).toEqual({ code: 0, signal: null, stderr: "" });
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    const [verified] = eventsOf(events, "verified");
    expect(verified!.comparedBytes).toBeGreaterThanOrEqual(MEMORY_MIB * MIB);
    expect(verified!.leftOut).not.toContain("pc.ram");
    expect(verified!.verifyMs).toBeLessThanOrEqual(summaryOf(events).downtimeMs!);
    expect(eventsOf(events, "notice").map(({ message }) => message)).toContainEqual(
      expect.stringContaining("--verify: the guest will stand still for at least"),
    );
  });

  test("one byte that is another one at the destination keeps the guest at the source", async () => {
    const { source, destination } = await startPair({ binary: qemu10!, append: LIGHT_LOAD });
    const running = await migration({ ...options, source, destination, rate: "20mbit" });
    const isSecondPass = ({ text }: { text: string }) => /"type":"iteration".*"iteration":1\b/.test(text);
    await running.migrate.stdout.waitFor(isSecondPass, "a second pass", { timeoutMs: 200_000 });
    // The page itself may still be on its way, and it comes once: until the guest is stopped.
    let isStopped = false;
    const isSwitchover = ({ text }: { text: string }) => /"type":"phase".*"phase":"switchover"/.test(text);
    const stopped = running.migrate.stdout
      .waitFor(isSwitchover, "the switchover", { timeoutMs: 200_000 })
      .finally(() => {
        isStopped = true;
      });
    while (!isStopped) {
      await poke(destination, UNUSED_AT + 5);
      await sleep(5);
    }
    await stopped;
    const { migrate: ended, receive, events } = await running.finish();
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain("MEMORY_DIFFERS");
    expect(ended.stderr).toContain(`page ${UNUSED_AT / 4096} of RAMBlock pc.ram`);
    expect(receive!.stderr).toContain("MEMORY_DIFFERS");
    expect(summaryOf(events)).toMatchObject({ outcome: "failed", vm: "running on source" });
    await expectStillOnSource(source, destination);
  });
});

/** Changes a byte of a guest's RAM behind its back. */
async function poke({ qmp, pid }: QemuVm, guestAddress: number): Promise<void> {
  const command = { "command-line": `gpa2hva 0x${guestAddress.toString(16)}` };
  const answer = await qmp.execute("human-monitor-command", command);
  const address = Number.parseInt(/ is 0x([0-9a-f]+)/.exec(answer)![1]!, 16);
  const memory = openSync(`/proc/${pid}/mem`, "r+");
  writeSync(memory, Uint8Array.of(1), 0, 1, address);
  closeSync(memory);
}
