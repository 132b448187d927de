// A service with settings of its own: each of those that are about the service itself, and no migration, is seen to hold.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { ControlClient } from "./control-client.ts";
import { Log } from "./log.ts";
import { type RunningService, startService } from "./run-service.ts";
import { parseSettings } from "./settings-file.ts";

async function start(
  settings: Record<string, unknown>,
): Promise<{ running: RunningService; folder: string }> {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-service-"));
  const log = new Log({ format: "json", level: "info", write: () => {} });
  const all = { stateDir: "state", http: { listen: "127.0.0.1:0" }, ...settings };
  const running = await startService(parseSettings(JSON.stringify(all), join(folder, "serve.yaml")), log);
  onTestFinished(async () => {
    await running.stop();
    rmSync(folder, { recursive: true });
  });
  return { running, folder };
}

/** The page is asked by this name. */
function statusFor(url: string, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request(new URL("metrics", url), { headers: { host } }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    })
      .on("error", reject)
      .end();
  });
}

test("the control socket is in the state folder, or where it is said to be", async () => {
  const { running, folder } = await start({});
  expect(running.controlPath).toBe(join(folder, "state/control.sock"));
  const other = await start({ control: "own.sock" });
  expect(other.running.controlPath).toBe(join(other.folder, "own.sock"));
  expect(existsSync(join(other.folder, "own.sock"))).toBe(true);
});

test("the page is where it is said to be, for the names that are said, or not at all", async () => {
  const { running } = await start({ http: { listen: "127.0.0.1:0", hostNames: ["scraped.example"] } });
  expect(await statusFor(running.url!, "scraped.example")).toBe(200);
  expect(await statusFor(running.url!, "other.example")).toBe(421);
  const none = await start({ http: { listen: "127.0.0.1:0", enabled: false } });
  expect(none.running.url).toBeUndefined();
});

test("the link's limit is told, and records have their folder", async () => {
  const { running, folder } = await start({ link: { rate: "8mbit" }, recordDir: "records" });
  expect(existsSync(join(folder, "records"))).toBe(true);
  const text = await (await fetch(new URL("metrics", running.url!))).text();
  expect(text).toContain("deltavee_link_limit_bytes_per_second 1000000");
  expect(await new ControlClient(running.controlPath).service()).toMatchObject({
    linkBytesPerSecond: 1_000_000,
    state: "running",
  });
});

test("VMs are taken in where it is said, by whom it is said", async () => {
  expect((await start({})).running.listen).toBeUndefined();
  const { running } = await start({ incoming: { listen: "127.0.0.1:0", concurrent: 3 } });
  expect(running.listen).toMatch(/^127\.0\.0\.1:\d+$/);
  await expect(start({ incoming: { listen: "127.0.0.1:0", allow: ["host1=vm=x=y"] } })).rejects.toThrow();
  await expect(start({ incoming: { listen: "127.0.0.1:0" }, tls: { dir: "/nowhere" } })).rejects.toThrow(
    /nowhere/,
  );
});

test("it waits for as long as its settings let it", async () => {
  const { running } = await start({ shutdown: { graceTime: "7s" } });
  const stop = vi.spyOn(running.service, "stop");
  await running.stop();
  expect(stop).toHaveBeenCalledWith(7000);
});
