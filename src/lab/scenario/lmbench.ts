// LMbench's memory benchmark, as the paper of 2011 used it: one of its loops over a working set, for as long as it takes.
// Its speed is that of a second, small and short one which is given precedence and started once per second: a loop that
// goes on for ever reports nothing.

import type { Activity, Scenario, Stage } from "../model.ts";
import { numberOf, wordOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";
import { AFTER_MS, PROGRESS_PORT, READY_TIMEOUT_MS, startProgress, throughputMetrics } from "./progress.ts";

/** Names are those of bw_mem: write, fill, read and write, copy, clear, copy by assignment, read. */
const BENCHMARKS = ["wr", "fwr", "rdwr", "bcopy", "bzero", "fcp", "rd"] as const;

/** Of Debian's package, with a folder for each architecture. */
const BW_MEM = "/usr/lib/lmbench/bin/*/bw_mem";

/**
 * Left alone it measures the clock and itself for minutes under emulation: 0.2 s are enough, and no overhead is taken
 * off. It warms nothing up (-W 0), as then the set would be another process's.
 */
function benchmarkCommand(
  enoughMicroseconds: number,
  repetitions: number,
  set: string,
  benchmark: string,
): string {
  return `ENOUGH=${enoughMicroseconds} TIMING_O=0 LOOP_O=0 ${BW_MEM} -W 0 -N ${repetitions} ${set} ${benchmark}`;
}

export const lmbench: Scenario = {
  name: "lmbench",
  title: "Memory benchmark",
  description:
    "LMbench's bw_mem: wr, fwr and rdwr dirty all of their set over and over but write the values that are there already, " +
    "which flatters every delta; bcopy, bzero and fcp work on zero pages, which cost nobody anything (controls).",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: {
    guest: { memoryMiB: 256, vcpus: 1 },
    parameters: { benchmark: "wr", workingSetMiB: 16 },
  },
  parameters: { benchmark: "wr", workingSetMiB: 256 },
  warmParameters: [],
  metrics: throughputMetrics({ title: "memory speed", unit: "MB/s" }),
  warmUp: async () => {},
  async begin(stage, parameters) {
    const benchmark = wordOf(parameters, "benchmark", BENCHMARKS);
    const workingSetMiB = numberOf(parameters, "workingSetMiB", { min: 1, max: stage.shape.memoryMiB });
    await stage.guest.start(
      benchmarkCommand(200_000, 100_000, `${workingSetMiB}M`, benchmark),
      "/tmp/lmbench.log",
    );
    const probe = `nice -n -20 sh -c "${benchmarkCommand(50_000, 1, "1M", benchmark)}" 2>&1`;
    await stage.guest.start(`/lab/bin/loop ${PROGRESS_PORT} 1000 '${probe}'`, "/tmp/loop.log");
    const client = await startProgress(stage, {
      throughput: { field: "value", kind: "value", name: "memory speed", unit: "MB/s" },
    });
    await client.ready(READY_TIMEOUT_MS);
    await mustRun(stage);
    return whileItRuns(stage, clientActivity(client, AFTER_MS));
  },
};

/** A benchmark whose set does not fit is killed by the guest's kernel, and the guest idles. */
async function mustRun({ guest }: Stage): Promise<void> {
  if (!(await isRunning(guest))) throw new Error(`LMbench ended: ${await guest.run("cat /tmp/lmbench.log")}`);
}

async function isRunning(guest: Stage["guest"]): Promise<boolean> {
  return (await guest.run("pgrep -f 'bw_mem.* -N 100000' || true")).trim() !== "";
}

function whileItRuns({ guest }: Stage, activity: Activity): Activity {
  return {
    ...activity,
    finish: async () => {
      const view = await activity.finish();
      const hasEnded = !(await isRunning(guest).catch(() => false));
      return hasEnded
        ? { ...view, failures: [...view.failures, "the benchmark is not running any more"] }
        : view;
    },
  };
}
