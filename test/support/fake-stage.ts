// A lab without hosts: monitors that keep what they are told and migrate as told to, a stage with a guest that answers,
// and a scenario whose clients see what they are told to.

import type { QmpClient } from "../../src/hypervisor/qemu/qmp.ts";
import type { CliRun } from "../../src/lab/host-process.ts";
import type { Method, MethodSetting, MigrationEnd } from "../../src/lab/method/method.ts";
import type { ClientView, Scenario } from "../../src/lab/model.ts";
import type { OpenedStage, StageVm } from "../../src/lab/run/opened-stage.ts";
import type { RunPlan } from "../../src/lab/run/plan.ts";

type Listener = (event: { name: string; data: unknown; qemuTimeMs: number; receivedMs: number }) => void;

export const RAM = {
  transferred: 0,
  remaining: 0,
  total: 0,
  duplicate: 10,
  normal: 20,
  "normal-bytes": 0,
  "dirty-pages-rate": 0,
  mbps: 80,
  "dirty-sync-count": 1,
  "page-size": 4096,
  "multifd-bytes": 0,
  "pages-per-second": 0,
  "postcopy-requests": 0,
};

/** Of a QEMU in which nothing is but what tests put there. */
export class FakeMonitor {
  readonly told: { command: string; given: Record<string, unknown> }[] = [];
  readonly capabilities: string[] = ["events", "xbzrle", "multifd", "auto-converge", "postcopy-ram"];
  readonly #listeners = new Map<string, Set<Listener>>();
  version = { major: 10, minor: 0, micro: 2 };
  running: boolean;
  migration: Record<string, unknown> = {};
  /** Called for each command before it is answered; what it throws is the answer. */
  onCommand: (command: string, given: Record<string, unknown>) => void = () => {};
  lose!: (error: Error) => void;
  readonly lost = new Promise<Error>((resolve) => {
    this.lose = resolve;
  });

  constructor(running: boolean) {
    this.running = running;
  }

  get qmp(): Pick<QmpClient, "execute" | "on" | "lost"> {
    const execute = async (command: string, given: Record<string, unknown> = {}) => {
      this.told.push({ command, given });
      this.onCommand(command, given);
      return this.#answer(command);
    };
    const on = (name: string, listener: Listener) => {
      const listeners = this.#listeners.get(name) ?? new Set();
      this.#listeners.set(name, listeners.add(listener));
      return () => listeners.delete(listener);
    };
    return { execute, on, lost: this.lost } as unknown as Pick<QmpClient, "execute" | "on" | "lost">;
  }

  raise(name: string, data: unknown = {}): void {
    const event = { name, data, qemuTimeMs: 0, receivedMs: performance.now() };
    for (const listener of [...(this.#listeners.get(name) ?? [])]) listener(event);
  }

  end(status: string): void {
    this.migration = { ...this.migration, status };
    this.raise("MIGRATION", { status });
  }

  /** Values that a command was given, in order. */
  given(command: string, name: string): unknown[] {
    return this.told.flatMap((each) =>
      each.command === command && name in each.given ? [each.given[name]] : [],
    );
  }

  #answer(command: string): unknown {
    switch (command) {
      case "query-version":
        return { qemu: this.version, package: "" };
      case "query-status":
        return { status: this.running ? "running" : "paused", running: this.running };
      case "query-migrate":
        return this.migration;
      case "query-migrate-capabilities":
        return this.capabilities.map((capability) => ({ capability, state: false }));
      case "human-monitor-command":
        return "kvm support: disabled\r\n";
      default:
        return {};
    }
  }
}

export class FakeStage implements OpenedStage {
  readonly monitors = { source: new FakeMonitor(true), destination: new FakeMonitor(false) };
  readonly source = this.#vm("source");
  readonly destination = this.#vm("destination");
  readonly link = {
    sourceNetns: undefined,
    destinationNetns: undefined,
    destinationAddress: "192.0.2.2",
    destinationPort: 4444,
  };
  readonly told: string[] = [];
  sentBytes = { bySource: 1000, byDestination: 100 };
  beats: ClientView = { metrics: { heartbeatGapMs: 120 }, failures: [], series: [] };
  answers = true;
  closed = 0;
  readonly stage: OpenedStage["stage"] = {
    guest: {
      run: async () => {
        if (!this.answers) throw new Error("no route to host");
        return "";
      },
      start: async () => {},
    },
    guestAddress: "192.0.2.9",
    shape: { memoryMiB: 512, vcpus: 1 },
    cacheFolder: "/nowhere",
    startClient: () => Promise.reject(new Error("there is no client host")),
  };
  readonly heartbeat: OpenedStage["heartbeat"] = {
    ready: async () => {},
    tell: (word) => {
      this.told.push(`heartbeat: ${word}`);
    },
    finish: async () => this.beats,
  };

  wireBytes() {
    return this.sentBytes;
  }

  async close(): Promise<void> {
    this.closed++;
  }

  /** The guest runs at the destination, and nowhere else. */
  arrive(): void {
    this.monitors.source.running = false;
    this.monitors.destination.running = true;
    this.monitors.destination.raise("RESUME");
  }

  #vm(side: "source" | "destination"): StageVm {
    return { pid: process.pid, qmp: this.monitors[side].qmp, toolQmp: { path: `/nowhere/${side}.qmp` } };
  }
}

export function fakeScenario(
  over: Partial<Scenario> & { view?: Partial<ClientView>; told?: string[]; afterMs?: number } = {},
): Scenario {
  const { view, told = [], afterMs = 0, ...rest } = over;
  return {
    name: "fake",
    title: "A guest that does nothing",
    description: "Nobody's.",
    guest: { memoryMiB: 512, vcpus: 1 },
    smoke: { guest: { memoryMiB: 128, vcpus: 1 }, parameters: {} },
    parameters: { bytesPerPage: 64, pattern: "sparse" },
    warmParameters: [],
    metrics: [],
    warmUp: async () => {},
    begin: async () => ({
      migrationBegins: () => void told.push("begins"),
      migrationEnded: () => void told.push("ended"),
      afterMs,
      finish: async () => ({ metrics: {}, failures: [], series: [], ...view }),
    }),
    ...rest,
  };
}

export function fakePlan(over: Partial<RunPlan> = {}, setting: Partial<RunPlan["setting"]> = {}): RunPlan {
  const scenario = over.scenario ?? fakeScenario();
  return {
    experiment: "test",
    scenario,
    setting: {
      scenario: scenario.name,
      parameters: scenario.parameters,
      guest: scenario.guest,
      method: "vanilla",
      link: { bytesPerSecond: 12.5e6, roundTripMs: 0, lossShare: 0 },
      qemu: "10.0",
      run: 1,
      ...setting,
    },
    downtimeMsMax: 300,
    forceAfterMs: 30_000,
    limitMs: 120_000,
    beforeMs: 0,
    afterMs: 0,
    ...over,
  };
}

/** Moves the guest as `migrate` does. */
export function fakeMethod(
  migrate: (setting: MethodSetting) => Promise<MigrationEnd>,
  mode: Method["mode"] = "stock",
): Method {
  return {
    name: "fake",
    title: "Fake",
    mode,
    sends: "standard",
    prepare: async (setting) => () => migrate(setting),
  };
}

export function noProcess(_side: string, run: CliRun): never {
  throw new Error(`a process was started: ${run.pid}`);
}
