// A key-value store under a load of writes with values that differ from each other and from what they replace. What it
// has acknowledged must be there when all is over.

import type { RedisLoadOptions } from "../client/redis-load-watch.ts";
import type { Metric, Scenario, ScenarioParameters, Stage } from "../model.ts";
import { numberOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";
import { AFTER_MS, READY_TIMEOUT_MS, throughputMetrics } from "./progress.ts";

const PORT = 6379;
const POPULATE_TIMEOUT_MS = 10 * 60_000;

/** Kept in memory alone: a copy on disk would be another workload. */
const SERVER = `redis-server --port ${PORT} --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /tmp`;

function storeOf(stage: Stage, parameters: ScenarioParameters) {
  return {
    host: stage.guestAddress,
    port: PORT,
    keys: numberOf(parameters, "keys", { min: 1, max: 10_000_000 }),
    valueBytes: numberOf(parameters, "valueBytes", { min: 16, max: 65_536 }),
  };
}

function latencyMetrics(): Metric[] {
  return (["Before", "During", "After"] as const).flatMap((phase) => {
    const when = phase.toLowerCase();
    return [
      { name: `latencyMedianMs${phase}`, title: `median write ${when}`, unit: "ms", isLowerBetter: true },
      { name: `latency99Ms${phase}`, title: `99 % of writes ${when}`, unit: "ms", isLowerBetter: true },
      { name: `latencyMaxMs${phase}`, title: `slowest write ${when}`, unit: "ms", isLowerBetter: true },
    ];
  });
}

export const keyvalue: Scenario = {
  name: "keyvalue",
  title: "Key-value store",
  description:
    "Redis under a load of writes that replace documents by others of which nearly all fields differ: whole small values " +
    "change, at random places, so that delta has to work for what it gains.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: {
    guest: { memoryMiB: 256, vcpus: 1 },
    parameters: { keys: 10_000, valueBytes: 512, writesPerSecond: 1000, connections: 2, pipelineDepth: 8 },
  },
  parameters: {
    keys: 400_000,
    valueBytes: 512,
    /** All connections together; 0: as many as the store takes. */
    writesPerSecond: 0,
    connections: 4,
    pipelineDepth: 8,
  },
  warmParameters: ["keys", "valueBytes"],
  metrics: [
    ...throughputMetrics({ title: "writes", unit: "1/s" }),
    { name: "lostWrites", title: "acknowledged writes lost", unit: "", isLowerBetter: true },
    { name: "damagedValues", title: "values damaged", unit: "", isLowerBetter: true },
    { name: "lateWrites", title: "writes longer than 5 s", unit: "", isLowerBetter: true },
    ...latencyMetrics(),
    { name: "checkedWrites", title: "keys read back", unit: "", isLowerBetter: false, isJudged: false },
  ],
  async warmUp(stage, parameters) {
    await stage.guest.run("sysctl -q vm.overcommit_memory=1");
    await stage.guest.start(SERVER, "/tmp/redis.log");
    const options: RedisLoadOptions = { task: "populate", ...storeOf(stage, parameters) };
    const client = await stage.startClient("redis-load", options);
    await client.ready(POPULATE_TIMEOUT_MS);
    await client.finish();
  },
  async begin(stage, parameters) {
    const options: RedisLoadOptions = {
      task: "load",
      ...storeOf(stage, parameters),
      connections: numberOf(parameters, "connections", { min: 1, max: 64 }),
      pipelineDepth: numberOf(parameters, "pipelineDepth", { min: 1, max: 1024 }),
      writesPerSecond: numberOf(parameters, "writesPerSecond"),
    };
    const client = await stage.startClient("redis-load", options);
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
