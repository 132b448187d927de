// The forecast is a process of this host's own, which no test host takes with it: what is interrupted ends it itself.

import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { fakePlan } from "../../../test/support/fake-stage.ts";
import { CancelledError } from "../../base/errors.ts";
import type { CliRun, Exit } from "../host-process.ts";
import { LineLog } from "../line-log.ts";
import { forecastBy } from "./forecast.ts";

/** A process that ends when it is killed, and not before. */
function endless(): { run: CliRun; killed: string[] } {
  const killed: string[] = [];
  let end: (exit: Exit) => void = () => {};
  const exited = new Promise<Exit>((resolve) => {
    end = resolve;
  });
  const kill = (signal: NodeJS.Signals) => {
    killed.push(signal);
    end({ code: null, signal });
  };
  const logs = { stdout: new LineLog(), stderr: new LineLog(), stderrTail: () => "" };
  return { killed, run: { pid: 1, stdin: new PassThrough(), exited, kill, stop: () => exited, ...logs } };
}

const source = { pid: 1, toolQmp: { path: "/nowhere" }, qmp: undefined as never };

test.each(["before it was started", "while it samples"])(
  "a forecast that is interrupted %s is ended",
  async (when) => {
    const { run, killed } = endless();
    const interrupted = new AbortController();
    const interrupt = () => interrupted.abort(new CancelledError("Interrupted"));
    let started: () => void = () => {};
    const isStarted = new Promise<void>((resolve) => {
      started = resolve;
    });
    const start = async () => {
      if (when === "before it was started") interrupt();
      started();
      return run;
    };
    const made = forecastBy(start)({ source }, fakePlan(), interrupted.signal);
    made.catch(() => {});
    await isStarted;
    interrupt();
    await new Promise((resolve) => setImmediate(resolve));
    expect(killed).toEqual(["SIGKILL"]);
    await expect(made).rejects.toThrow("Interrupted");
  },
);
