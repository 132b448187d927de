import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeLab } from "../../../test/support/fake-lab.ts";
import { freePort, type Subprocess, startProcess, tempFolder } from "../host-process.ts";
import { RedisConnection } from "./redis.ts";
import { type RedisLoadOptions, watchRedisLoad } from "./redis-load-watch.ts";

/** Without the server there is nothing to be loaded: apt-get install redis-server. */
const isInstalled = spawnSync("redis-server", ["--version"]).status === 0;

describe.skipIf(!isInstalled)("the load on a real Redis", () => {
  const folder = tempFolder();
  let server: Subprocess;
  let port: number;

  beforeAll(async () => {
    port = await freePort();
    server = await startProcess("redis-server", [
      ...["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder.path],
    ]);
  });
  afterAll(async () => {
    await server.stop();
    folder.remove();
  });

  const options = (more: Partial<RedisLoadOptions>): RedisLoadOptions => ({
    host: "127.0.0.1",
    port,
    task: "load",
    keys: 500,
    valueBytes: 100,
    connections: 3,
    beforeMs: 100,
    ...more,
  });

  async function populate(): Promise<void> {
    const lab = new FakeLab(options({ task: "populate" }));
    const view = watchRedisLoad(lab);
    await lab.isReady;
    lab.finish();
    await view;
  }

  async function withRedis<T>(use: (redis: RedisConnection) => Promise<T>): Promise<T> {
    const redis = await RedisConnection.open({ host: "127.0.0.1", port }, 5000);
    try {
      return await use(redis);
    } finally {
      redis.close();
    }
  }

  it("begins with a value for every key, each another", async () => {
    await populate();
    await withRedis(async (redis) => {
      expect(await redis.command("DBSIZE")).toBe(500);
      const names = Array.from({ length: 500 }, (_, key) => `document:${key}`);
      expect(new Set((await redis.command("MGET", ...names)) as string[]).size).toBe(500);
    });
  });

  it("tells writes and latencies of each phase, and finds every acknowledged write again", async () => {
    const lab = new FakeLab(options({}));
    const view = watchRedisLoad(lab);
    await lab.isReady;
    lab.begin();
    await sleep(300);
    lab.end();
    await sleep(300);
    lab.finish();
    const { metrics, failures, series } = await view;
    expect(failures).toEqual([]);
    for (const phase of ["Before", "During", "After"]) {
      expect(metrics[`throughput${phase}`]).toBeGreaterThan(0);
      expect(metrics[`latencyMedianMs${phase}`]).toBeLessThanOrEqual(metrics[`latency99Ms${phase}`]!);
      expect(metrics[`latency99Ms${phase}`]).toBeLessThanOrEqual(metrics[`latencyMaxMs${phase}`]!);
    }
    expect(metrics).toMatchObject({ lostWrites: 0, damagedValues: 0, lateWrites: 0 });
    expect(metrics.checkedWrites).toBeGreaterThan(100);
    expect(series.map(({ name }) => name)).toEqual(["writes", "slowest write"]);
  });

  it("keeps the pace it is given", async () => {
    const lab = new FakeLab(options({ writesPerSecond: 400, pipelineDepth: 4, beforeMs: 1000 }));
    const view = watchRedisLoad(lab);
    await lab.isReady;
    lab.finish();
    const { metrics } = await view;
    // A slow machine may write less, but nothing writes much more: without a pace it would be tens of thousands.
    expect(metrics.throughputBefore).toBeGreaterThan(0);
    expect(metrics.throughputBefore).toBeLessThan(800);
  });

  it("finds writes that were acknowledged and are not there any more", async () => {
    // So slowly that what is gone is not all written anew before the end.
    const lab = new FakeLab(options({ writesPerSecond: 400, beforeMs: 500 }));
    const view = watchRedisLoad(lab);
    await lab.isReady;
    await withRedis((redis) => redis.command("FLUSHALL"));
    lab.finish();
    const { metrics, failures } = await view;
    expect(metrics.lostWrites).toBeGreaterThan(0);
    expect(failures.join()).toMatch(/acknowledged writes lost/);
  });

  it("tells of a server that has gone", async () => {
    await populate();
    const lab = new FakeLab(options({}));
    const view = watchRedisLoad(lab);
    await lab.isReady;
    lab.begin();
    await server.stop();
    await sleep(50);
    lab.finish();
    const { metrics, failures } = await view;
    expect(failures.join()).toMatch(/connections lost/);
    expect(failures.join()).toMatch(/could not be read back/);
    expect(metrics).not.toHaveProperty("lostWrites");
  });
});
