// The public API as a program has it: two VMs of the embedded hypervisor in this process, and a tunnel between them.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { modelOf } from "../../test/support/guest-model.ts";
import {
  CancelledError,
  DeltaveeError,
  EmbeddedVm,
  migrate,
  type PlanOptions,
  plan,
  type RecordEvent,
  type RunResult,
  receive,
  UsageError,
} from "./index.ts";

const MEMORY = { memoryBytes: 16 * 1024 * 1024 };

let folder: string;
let opened: EmbeddedVm[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-library-"));
  opened = [];
});
afterEach(async () => {
  await Promise.all(opened.map((vm) => vm.close()));
  rmSync(folder, { recursive: true });
});

/** What the guest says from now on, line by line. */
interface Heard {
  vm: EmbeddedVm;
  lines: string[];
  says(pattern: RegExp): Promise<string>;
}

async function open(kind: "boot" | "empty"): Promise<Heard> {
  const lines: string[] = [];
  let look = () => {};
  const onSerialLine = (line: string) => {
    lines.push(line);
    look();
  };
  const vm = await EmbeddedVm[kind]({ ...MEMORY, onSerialLine });
  opened.push(vm);
  return {
    vm,
    lines,
    says: (pattern) =>
      new Promise((resolve) => {
        look = () => {
          const found = lines.find((line) => pattern.test(line));
          if (found !== undefined) resolve(found);
        };
        look();
      }),
  };
}

/** A destination that listens, and what becomes of it. */
async function destination(options: { vm: EmbeddedVm; signal?: AbortSignal }): Promise<{
  address: string;
  ended: Promise<RunResult>;
}> {
  let ended: Promise<RunResult>;
  const address = await new Promise<string>((resolve, reject) => {
    ended = receive({ ...options, listen: "127.0.0.1:0", onListening: resolve });
    ended.catch(reject);
  });
  return { address, ended: ended! };
}

const codeOf = (thrown: unknown) => (thrown instanceof DeltaveeError ? thrown.code : thrown);

// Whole migrations: on a busy machine a guest takes its time even to boot.
describe("migrate and receive", { timeout: 300_000 }, () => {
  test("a guest moves whole, and the program sees it happen", async () => {
    const source = await open("boot");
    const there = await open("empty");
    await source.says(/^READY /);
    const { address, ended } = await destination(there);
    expect(address).toMatch(/^deltavee:\/\/127\.0\.0\.1:[1-9]\d*$/);
    const events: RecordEvent[] = [];
    const record = join(folder, "run.ndjson");
    const moved = await migrate({
      vm: source.vm,
      to: address,
      maxDowntimeMs: 2000,
      onStall: "switchover",
      onEvent: (event) => events.push(event),
      record,
    });
    expect(moved.vm).toBe("with the destination");
    expect(moved.summary).toMatchObject({ outcome: "completed", vm: moved.vm });
    expect((await ended).vm).toBe("running on destination");
    const phases = events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
    expect(phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
    expect(events[0]).toMatchObject({ type: "run", side: "source", mode: "tunnel" });
    expect(events.at(-1)).toEqual(moved.summary);
    const written = readFileSync(record, "utf8").trimEnd().split("\n");
    expect(written.map((line) => JSON.parse(line))).toEqual(events);
    await there.vm.type("v");
    expect(await there.says(/^VERIFY /)).toMatch(/^VERIFY ok /);
  });

  test("who gives up has the guest where it was", async () => {
    const source = await open("boot");
    const there = await open("empty");
    await source.says(/^READY /);
    const { address, ended } = await destination(there);
    const giveUp = new AbortController();
    const error: unknown = await migrate({
      vm: source.vm,
      to: address,
      maxBytesPerSecond: 200_000,
      signal: giveUp.signal,
      onEvent: ({ type }) => {
        if (type === "sample") giveUp.abort();
      },
    }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(CancelledError);
    expect(error).toMatchObject({ code: "CANCELLED", vm: "running on source" });
    expect(codeOf(await ended.catch((thrown: unknown) => thrown))).toBe("CANCELLED");
    source.lines.length = 0;
    await source.vm.type("v");
    expect(await source.says(/^VERIFY /)).toMatch(/^VERIFY ok /);
    expect(there.lines).toEqual([]);
  });

  test("any downtime will do: a migration that waits for a better moment takes the next one", async () => {
    const source = await open("boot");
    const there = await open("empty");
    await source.says(/^READY /);
    const { address, ended } = await destination(there);
    const hurry = new AbortController();
    let wasHurried = false;
    const moved = await migrate({
      vm: source.vm,
      to: address,
      // More than it can promise over such a link.
      maxBytesPerSecond: 400_000,
      maxDowntimeMs: 0.001,
      anyDowntime: hurry.signal,
      onEvent: (event) => {
        if (event.type === "iteration" && event.iteration >= 1) hurry.abort();
        if (event.type === "notice" && event.message.startsWith("Any downtime")) wasHurried = true;
      },
    });
    expect(wasHurried).toBe(true);
    expect(moved.vm).toBe("with the destination");
    await ended;
  });

  test("a receiver that is told to stop waiting lets go of its port", async () => {
    const there = await open("empty");
    const stop = new AbortController();
    const { address, ended } = await destination({ vm: there.vm, signal: stop.signal });
    stop.abort();
    expect(codeOf(await ended.catch((thrown: unknown) => thrown))).toBe("CANCELLED");
    const source = await open("boot");
    const events: RecordEvent[] = [];
    const onEvent = (event: RecordEvent) => void events.push(event);
    const told = { code: "LINK_FAILED", vm: "running on source" };
    await expect(migrate({ vm: source.vm, to: address, onEvent })).rejects.toMatchObject(told);
    expect(events.at(-1)).toMatchObject({ type: "error", ...told });
  });

  test("before anything is begun a migration that is not wanted any more is not", async () => {
    const options = { qmp: join(folder, "qmp.sock"), to: "tcp:127.0.0.1:1", signal: AbortSignal.abort() };
    expect(codeOf(await migrate(options).catch((thrown: unknown) => thrown))).toBe("CANCELLED");
    const there = { qmp: options.qmp, listen: "127.0.0.1:0", signal: AbortSignal.abort() };
    expect(codeOf(await receive(there).catch((thrown: unknown) => thrown))).toBe("CANCELLED");
    const signal = AbortSignal.abort(new DeltaveeError("HYPERVISOR_INCOMPATIBLE", "Cannot carry it"));
    await expect(migrate({ ...options, signal })).rejects.toBe(signal.reason);
  });
});

describe("options that make no sense are refused before anything is connected to", () => {
  const good = { qmp: "/nowhere/qmp.sock", to: "deltavee://127.0.0.1:1" };
  test.each([
    ["no VM", { qmp: undefined }, "either qmp or vm"],
    ["no destination", { to: "nowhere" }, "nowhere"],
    ["port 0", { to: "tcp:host2:0" }, "Port 0"],
    ["a promise of nothing", { maxDowntimeMs: 0 }, "maxDowntimeMs"],
    ["no number", { maxTimeMs: Number.NaN }, "maxTimeMs"],
    ["less than nothing", { cacheBytes: -1 }, "cacheBytes"],
    ["an unknown codec", { codec: "gzip" }, "gzip"],
    ["an unknown policy", { cachePolicy: "fifo2" }, "fifo2"],
    ["an unknown way out", { onStall: "hope" }, "hope"],
    ["too little patience", { switchoverTimeoutMs: 10 }, "10 ms"],
    ["a codec without a tunnel", { to: "tcp:127.0.0.1:1", codec: "xbzrle" }, "tunnel"],
    ["TLS without a tunnel", { to: "tcp:127.0.0.1:1", tlsDir: "/nowhere" }, "tunnel"],
  ])("%s", async (_what, wrong, says) => {
    const error: unknown = await migrate({ ...good, ...wrong }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UsageError);
    expect((error as UsageError).message).toContain(says);
  });

  test("of receive", async () => {
    const there = { qmp: "/nowhere/qmp.sock", listen: "127.0.0.1:0" };
    for (const wrong of [{ qmp: undefined }, { listen: "here" }, { allow: ["=x"] }, { baselineBytes: -1 }]) {
      const error: unknown = await receive({ ...there, ...wrong }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(UsageError);
    }
  });

  test("the embedded hypervisor: a tunnel only, and a guest where one is needed", async () => {
    const [source, there] = [await open("boot"), await open("empty")];
    const wrong = [
      migrate({ vm: source.vm, to: "tcp:127.0.0.1:1" }),
      migrate({ vm: there.vm, to: "deltavee://127.0.0.1:1" }),
      receive({ vm: source.vm, listen: "127.0.0.1:0" }),
    ];
    for (const each of wrong) expect(codeOf(await each.catch((thrown: unknown) => thrown))).toBe("USAGE");
  });

  test("a record that is there already is not overwritten", async () => {
    const source = await open("boot");
    const record = new URL(import.meta.url).pathname;
    expect(existsSync(record)).toBe(true);
    const run = migrate({ vm: source.vm, to: "deltavee://127.0.0.1:1", record });
    expect(codeOf(await run.catch((thrown: unknown) => thrown))).toBe("USAGE");
  });
});

describe("plan()", () => {
  const link = { linkBytesPerSecond: 12.5e6 };

  test("takes options that make sense, and says which do not", async () => {
    const guest = modelOf();
    const refused = (options: Partial<PlanOptions>) =>
      expect(plan({ ...link, ...options })).rejects.toThrow(UsageError);
    await refused({});
    await refused({ guest, qmp: "/nowhere/qmp" });
    await refused({ guest, linkBytesPerSecond: 0 });
    await refused({ guest, lossShare: 0.5 });
    await refused({ guest, maxDowntimeMs: -1 });
    const { vm } = await open("empty");
    await refused({ vm });
  });

  test("forecasts a guest that was looked at before, by every method or by those that are asked for", async () => {
    const guest = modelOf();
    const all = await plan({ ...link, guest });
    expect(all.guest).toEqual(guest);
    expect(all.forecasts.map(({ method }) => method)).toContain("vanilla");
    expect(all.recommended).toBeDefined();
    const some = await plan({ ...link, guest, methods: ["direct"] });
    expect(some.forecasts.map(({ method }) => method)).toEqual(["direct"]);
  });
});
