// The lab as its users run it: each scenario once, small and short, moved by a method of QEMU's or by the tunnel in
// turn. That it works is tested, not how fast anything is.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { labCacheFolder } from "../../src/lab/cache.ts";
import { bootOnce } from "../../src/lab/guest/accelerator.ts";
import { probeGuest } from "../../src/lab/guest/guest-vm.ts";
import { buildImage } from "../../src/lab/image/image.ts";
import { EXPERIMENTS, plansOf, QEMU_DEFAULT } from "../../src/lab/run/experiments.ts";
import { takeLock } from "../../src/lab/run/lock.ts";
import { ResultStore } from "../../src/lab/run/store.ts";
import { scenarios } from "../../src/lab/scenario/index.ts";
import { parseRecord } from "../../src/record/reader.ts";
import { eventsOf } from "../../src/report/figures.ts";
import { type CliRun, runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { whyNoTestHosts } from "../support/test-hosts.ts";

/** Of a whole root file system from Debian's archive, once on a machine. */
const IMAGE_TIMEOUT_MS = 900_000;
/** With the making of a warm state, on a busy machine. */
const RUN_TIMEOUT_MS = 600_000;
/** What a viewer says of a slow machine's pre-copy: a figure, and how large it is is not tested. */
const LATE_PICTURE = /^picture frozen for \d+\.\d s with 1\.0 s of buffer$/;

const missing = whatIsMissing();
if (missing !== undefined) {
  const message = `Tests of the lab are left out: ${missing}`;
  if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message);
  console.warn(message);
}

/** Undefined: nothing. */
function whatIsMissing(): string | undefined {
  if (!findQemus().has(QEMU_DEFAULT)) return `there is no QEMU ${QEMU_DEFAULT}`;
  const tools = ["mmdebstrap", "mke2fs", "ip", "tc"];
  const folders = (process.env.PATH ?? "").split(":");
  const absent = tools.filter((tool) => !folders.some((folder) => existsSync(join(folder, tool))));
  return absent.length === 0 ? undefined : `there is no ${absent.join(", ")}`;
}

const smoke = EXPERIMENTS.find(({ name }) => name === "smoke")!;
const plans = plansOf(smoke, scenarios);
const folder = tempFolder();
let running: CliRun | undefined;

async function lab(...words: string[]): Promise<CliRun> {
  running = await runCli(["lab", ...words]);
  const { code } = await running.exited;
  expect(code, running.stderrTail()).toBe(0);
  return running;
}

const noHosts = (await whyNoTestHosts()) !== undefined;

describe.skipIf(noHosts || missing !== undefined)("the lab", () => {
  beforeAll(async () => void (await lab("image")), IMAGE_TIMEOUT_MS);
  afterAll(async () => {
    await running?.stop();
    folder.remove();
  });

  test.each(plans.map((plan) => [plan.setting.scenario, plan.setting.method, plan] as const))(
    "moves %s by %s, and writes down what its users saw",
    async (scenario, method, plan) => {
      await lab("run", scenario, "--experiment", "smoke", "--results", folder.path);
      const path = new ResultStore(folder.path).path(plan);
      const { events, notices } = parseRecord(readFileSync(path, "utf8"), path);
      expect(notices).toEqual([]);
      const [verdict] = eventsOf(events, "verdict");
      const failures = verdict!.failures.filter((failure) => !LATE_PICTURE.test(failure));
      expect(failures).toEqual([]);
      expect(verdict!.succeeded).toBe(verdict!.failures.length === 0);
      const { heartbeatGapMs, totalMs, wireBytes, sourceCpuMs, destinationCpuMs } = verdict!.metrics;
      for (const figure of [heartbeatGapMs, totalMs, wireBytes, sourceCpuMs, destinationCpuMs]) {
        expect(figure).toBeGreaterThan(0);
      }
      expect(eventsOf(events, "lab")[0]).toMatchObject({ scenario, method });
      // A later planner can be asked again.
      const guest = eventsOf(events, "forecast")[0]?.basis?.guest;
      expect(guest?.pages).toBeGreaterThan(0);
      expect(guest?.rateClasses.length).toBeGreaterThan(1);
      expect(eventsOf(events, "sample").length).toBeGreaterThan(0);
      expect(eventsOf(events, "client").length).toBeGreaterThan(0);
      expect(events.at(-1)).toMatchObject({ outcome: "completed", vm: "running on destination" });
      // Some hundred lines: they are kept in a repository.
      expect(events.length).toBeLessThan(1500);
    },
    RUN_TIMEOUT_MS,
  );

  // One that never gives it would have everybody without KVM.
  test("the guest that shows whether KVM works gives its sign of life", async () => {
    const probe = { ...probeGuest(await buildImage()), timeoutMs: 120_000 };
    await bootOnce(findQemus().get(QEMU_DEFAULT)!, probe, "tcg");
  }, 180_000);

  test("does nothing that was done before", async () => {
    const [first] = plans;
    const again = await lab(
      "run",
      first!.setting.scenario,
      "--experiment",
      "smoke",
      "--results",
      folder.path,
    );
    expect(again.stdout.lines.map(({ text }) => text).join()).toContain("0 runs made");
  });

  test(
    "is interrupted in good order: nothing of it is left, and nobody is locked out",
    async () => {
      const words = ["run", "idle", "--name", "interrupted", "--results", folder.path, "--method", "tunnel"];
      const interrupted = await runCli(["lab", ...words, "--before", "60s"]);
      running = interrupted;
      await interrupted.stderr.waitFor(({ text }) => text.includes("begins"), "a run", {
        timeoutMs: 180_000,
      });
      interrupted.kill("SIGINT");
      const { code } = await interrupted.exited;
      expect(code, interrupted.stderrTail()).toBe(130);
      takeLock(join(labCacheFolder(), "lock")).release();
      expect(existsSync(join(folder.path, "interrupted"))).toBe(false);
    },
    RUN_TIMEOUT_MS,
  );
});

test("the smoke run has each scenario", () => {
  expect([...new Set(plans.map(({ setting }) => setting.scenario))].sort()).toEqual(
    scenarios.map(({ name }) => name).sort(),
  );
});
