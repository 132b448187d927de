// Options of `deltavee plan` that do not fit together are refused before anything is looked at.

import { expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { planCommand } from "./plan.ts";

test.each([
  ["no guest", [], "one of --qmp, --model, --trace and --fleet"],
  ["two guests", ["--qmp", "/nowhere", "--model", "model.json"], "one of --qmp"],
  ["a process without a monitor", ["--model", "model.json", "--pid", "1"], "--pid goes with --qmp"],
  ["an end of no watch", ["--qmp", "/nowhere", "--watch-for", "1h"], "--watch-for goes with --watch"],
  ["a watch without a guest to watch", ["--fleet", "3", "--watch", "10m"], "running guest"],
  ["a watch without pause", ["--qmp", "/nowhere", "--watch", "0ms"], "1s to 24 days"],
  ["a watch that no timer waits for", ["--qmp", "/nowhere", "--watch", "1000h"], "1s to 24 days"],
  ["one file for many samples", ["--qmp", "/nowhere", "--watch", "10m", "--save-model", "m"], "--save-model"],
  ["a fleet's model", ["--fleet", "3", "--save-model", "m"], "--save-model is not for --fleet"],
  ["a calibrated fleet", ["--fleet", "3", "--calibrate", "records"], "--calibrate is not for --fleet"],
  ["a fleet's rewritten pages", ["--fleet", "3", "--rewritten", "5"], "--rewritten is not for --fleet"],
  ["no number of pages", ["--model", "m", "--rewritten", "many"], "Not a number of pages a second"],
  ["a fleet's cache", ["--fleet", "3", "--cache-size", "64MiB"], "--cache-size is not for --fleet"],
])("%s is refused", async (_what, options, message) => {
  const run = planCommand().parseAsync([...options, "--link", "100mbit"], { from: "user" });
  await expect(run).rejects.toThrow(message);
  await expect(run).rejects.toBeInstanceOf(UsageError);
});
