// QEMU's own methods, at two monitors behind which nothing is: what each side is told, and when a migration is ended.

import { describe, expect, test } from "vitest";
import { type FakeMonitor, FakeStage, noProcess, RAM } from "../../../test/support/fake-stage.ts";
import { VirtualClock } from "../../base/clock.ts";
import { CancelledError, QmpCommandError } from "../../base/errors.ts";
import { METHODS, methodNamed } from "./all.ts";
import type { MethodSetting, MigrationEnd } from "./method.ts";

const MIB = 1024 ** 2;
const FORCE_AFTER_MS = 30_000;
const LIMIT_MS = 120_000;

class Scene {
  readonly clock = new VirtualClock();
  readonly stage = new FakeStage();
  readonly source: FakeMonitor = this.stage.monitors.source;
  readonly destination: FakeMonitor = this.stage.monitors.destination;
  readonly setting: MethodSetting = {
    source: this.stage.source,
    destination: this.stage.destination,
    link: this.stage.link,
    memoryBytes: 1000 * MIB,
    downtimeMsMax: 300,
    forceAfterMs: FORCE_AFTER_MS,
    limitMs: LIMIT_MS,
    recordFile: undefined,
    stateFolder: undefined,
    clock: this.clock,
    started: noProcess,
  };

  end: Promise<MigrationEnd> | undefined;

  /** Resolves when the migration has begun. */
  async begin(name: string): Promise<this> {
    const migrate = await methodNamed(name).prepare(this.setting);
    this.end = migrate();
    this.end.catch(() => {});
    await settled();
    return this;
  }

  async pass(ms: number): Promise<void> {
    this.clock.advance(ms);
    await settled();
  }
}

/** Everything that needs no time has been done. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

const STOCK = METHODS.filter(({ mode }) => mode === "stock").map(({ name }) => name);
const PRECOPY = STOCK.filter((name) => name !== "postcopy");

describe("what the two sides are told", () => {
  test.each([
    ["vanilla", ["events"], ["events"], {}],
    ["xbzrle-64m", ["events", "xbzrle"], ["events", "xbzrle"], { "xbzrle-cache-size": 64 * MIB }],
    ["xbzrle-tenth", ["events", "xbzrle"], ["events", "xbzrle"], { "xbzrle-cache-size": 64 * MIB }],
    ["xbzrle-full", ["events", "xbzrle"], ["events", "xbzrle"], { "xbzrle-cache-size": 1024 * MIB }],
    ["auto-converge", ["events", "auto-converge"], ["events"], {}],
    ["postcopy", ["events", "postcopy-ram"], ["events", "postcopy-ram"], {}],
    [
      "multifd-zstd",
      ["events", "multifd"],
      ["events", "multifd"],
      { "multifd-channels": 2, "multifd-compression": "zstd" },
    ],
  ])("%s", async (name, atSource, atDestination, parameters) => {
    const { source, destination } = await new Scene().begin(name);
    const on = (monitor: FakeMonitor) =>
      (
        monitor.given("migrate-set-capabilities", "capabilities") as {
          capability: string;
          state: boolean;
        }[][]
      )
        .flat()
        .filter(({ state }) => state)
        .map(({ capability }) => capability);
    expect([on(source), on(destination)]).toEqual([atSource, atDestination]);
    for (const [parameter, value] of Object.entries(parameters)) {
      expect(source.given("migrate-set-parameters", parameter)).toEqual([value]);
      expect(destination.given("migrate-set-parameters", parameter)).toEqual([value]);
    }
    expect(source.given("migrate-set-parameters", "downtime-limit")).toEqual([300]);
    expect(destination.given("migrate-incoming", "uri")).toEqual(source.given("migrate", "uri"));
  });

  test.each(["xbzrle-full", "multifd-zstd", "auto-converge", "postcopy"])(
    "%s is refused by its name by a QEMU that does not know of it",
    async (name) => {
      const { setting, source, destination } = new Scene();
      for (const monitor of [source, destination]) {
        monitor.version = { major: 7, minor: 2, micro: 22 };
        monitor.capabilities.splice(0, monitor.capabilities.length, "events");
      }
      const refused = methodNamed(name).prepare(setting);
      await expect(refused).rejects.toMatchObject({ code: "HYPERVISOR_INCOMPATIBLE" });
      await expect(refused).rejects.toThrow(new RegExp(`^QEMU 7.2 cannot do ${name}: it has no capability`));
    },
  );

  test("what it knows of and was built without is refused too, with the reason", async () => {
    const { setting, destination } = new Scene();
    destination.onCommand = (command, given) => {
      if ("multifd-compression" in given)
        throw new QmpCommandError(
          command,
          "GenericError",
          "Parameter 'multifd-compression' does not accept 'zstd'",
        );
    };
    await expect(methodNamed("multifd-zstd").prepare(setting)).rejects.toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
      cause: expect.objectContaining({ message: expect.stringContaining("does not accept") }),
    });
  });
});

describe("a migration that does not end by itself", () => {
  test.each(STOCK)("%s keeps no timer once nobody waits for it any more", async (name) => {
    const interrupted = new AbortController();
    const scene = new Scene();
    Object.assign(scene.setting, { signal: interrupted.signal });
    await scene.begin(name);
    expect(scene.clock.nextDueMs()).toBeDefined();
    // Its monitors are closed on this side: they say nothing any more, not even that they are gone.
    const gone = () => Promise.reject(new Error("closed"));
    for (const monitor of [scene.source, scene.destination]) monitor.onCommand = gone;
    interrupted.abort(new CancelledError("Interrupted"));
    await expect(scene.end).rejects.toThrow("Interrupted");
    await scene.pass(1000);
    expect(scene.clock.nextDueMs()).toBeUndefined();
  });

  test.each(PRECOPY)("%s is allowed any downtime at the same time as all others", async (name) => {
    const scene = await new Scene().begin(name);
    await scene.pass(FORCE_AFTER_MS - 1);
    expect(scene.source.given("migrate-set-parameters", "downtime-limit")).toEqual([300]);
    await scene.pass(1);
    expect(scene.source.given("migrate-set-parameters", "downtime-limit")).toEqual([300, 2_000_000]);
    scene.source.end("completed");
    expect(await scene.end).toEqual({ arrived: true, forcedAtMs: FORCE_AFTER_MS });
  });

  test.each(PRECOPY)("%s is cancelled at the limit", async (name) => {
    const scene = await new Scene().begin(name);
    await scene.pass(LIMIT_MS);
    expect(scene.source.told.at(-1)?.command).toBe("migrate_cancel");
    scene.source.end("cancelled");
    expect(await scene.end).toEqual({ arrived: false, forcedAtMs: FORCE_AFTER_MS });
  });

  test("and that ends while it is being cancelled has arrived", async () => {
    const scene = await new Scene().begin("vanilla");
    await scene.pass(LIMIT_MS);
    scene.source.end("completed");
    expect(await scene.end).toEqual({ arrived: true, forcedAtMs: FORCE_AFTER_MS });
  });

  test("and that cannot be cancelled is an error", async () => {
    const scene = await new Scene().begin("vanilla");
    await scene.pass(LIMIT_MS);
    await scene.pass(30_000);
    await expect(scene.end).rejects.toThrow("did not cancel");
  });
});

test("a migration that ends before is not forced", async () => {
  const scene = await new Scene().begin("vanilla");
  await scene.pass(1000);
  scene.source.end("completed");
  expect(await scene.end).toEqual({ arrived: true });
  await scene.pass(LIMIT_MS);
  expect(scene.source.told.map(({ command }) => command)).not.toContain("migrate_cancel");
  expect(scene.source.given("migrate-set-parameters", "downtime-limit")).toEqual([300]);
});

test("one that fails says why", async () => {
  const scene = await new Scene().begin("vanilla");
  scene.source.migration = { "error-desc": "Unable to write to socket" };
  scene.source.end("failed");
  await expect(scene.end).rejects.toThrow("QEMU's migration has failed: Unable to write to socket");
});

test("one whose QEMU dies ends", async () => {
  const scene = await new Scene().begin("vanilla");
  scene.source.lose(new Error("QEMU closed the connection"));
  await expect(scene.end).rejects.toThrow("QEMU closed the connection");
});

describe("post-copy", () => {
  const started = ({ source }: Scene) =>
    source.told.filter(({ command }) => command === "migrate-start-postcopy").length;

  test("begins after the first pass, once", async () => {
    const scene = new Scene();
    scene.source.migration = { status: "active", ram: RAM };
    await scene.begin("postcopy");
    await scene.pass(1000);
    expect(started(scene)).toBe(0);
    scene.source.migration = { status: "active", ram: { ...RAM, "dirty-sync-count": 2 } };
    await scene.pass(20);
    expect(started(scene)).toBe(1);
    await scene.pass(FORCE_AFTER_MS);
    expect(started(scene)).toBe(1);
    scene.source.end("completed");
    expect(await scene.end).toEqual({ arrived: true });
  });

  test("begins in the first pass when that takes too long: the others are forced then, too", async () => {
    const scene = new Scene();
    scene.source.migration = { status: "active", ram: RAM };
    await scene.begin("postcopy");
    await scene.pass(FORCE_AFTER_MS);
    expect(started(scene)).toBe(1);
    scene.source.end("completed");
    expect(await scene.end).toEqual({ arrived: true, forcedAtMs: FORCE_AFTER_MS });
  });

  test("is never cancelled: neither side has all of the guest", async () => {
    const scene = new Scene();
    scene.source.migration = { status: "active", ram: { ...RAM, "dirty-sync-count": 2 } };
    await scene.begin("postcopy");
    await scene.pass(LIMIT_MS);
    await expect(scene.end).rejects.toThrow("Post-copy has not ended within 2 min 0 s");
    expect(scene.source.told.map(({ command }) => command)).not.toContain("migrate_cancel");
  });
});
