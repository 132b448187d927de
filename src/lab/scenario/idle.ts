// A guest in which nothing happens but what an operating system does by itself. Nobody uses it; its heartbeat tells
// all that there is to see.

import type { Scenario } from "../model.ts";
import { AFTER_MS } from "./progress.ts";

export const idle: Scenario = {
  name: "idle",
  title: "Idle system",
  description:
    "An operating system without work: what a method costs when there is next to nothing to do; favours nobody.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: { guest: { memoryMiB: 256, vcpus: 1 }, parameters: {} },
  parameters: {},
  warmParameters: [],
  metrics: [],
  warmUp: async () => {},
  begin: async () => ({
    migrationBegins: () => {},
    migrationEnded: () => {},
    afterMs: AFTER_MS,
    finish: async () => ({ metrics: {}, failures: [], series: [] }),
  }),
};
