// The forecast is a process of this host's own, which no test host takes with it: what is interrupted ends it itself.

import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fakePlan } from "../../../test/support/fake-stage.ts";
import { tempFolder } from "../../../test/support/processes.ts";
import { CancelledError } from "../../base/errors.ts";
import { forecast } from "./forecast.ts";

test("a forecast that is interrupted leaves no process and no timer behind", async () => {
  const folder = tempFolder();
  const path = join(folder.path, "silent.qmp");
  const interrupted = new AbortController();
  const held = () =>
    process.getActiveResourcesInfo().filter((name) => name === "ProcessWrap" || name === "Timeout").length;
  const before = held();
  let asked: Socket | undefined;
  // A monitor that never greets: it is waited for.
  const monitor = createServer((socket) => {
    asked = socket;
    socket.on("error", () => {});
    interrupted.abort(new CancelledError("Interrupted"));
  }).listen(path);
  const source = { pid: process.pid, toolQmp: { path }, qmp: undefined as never };
  const made = forecast({ source }, fakePlan(), interrupted.signal);
  await expect(made).rejects.toThrow("Interrupted");
  await new Promise((resolve) => (asked!.destroyed ? resolve(undefined) : asked!.once("close", resolve)));
  monitor.close();
  folder.remove();
  for (let look = 0; look < 100 && held() > before; look++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(held()).toBeLessThanOrEqual(before);
});
