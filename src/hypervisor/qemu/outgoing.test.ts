// What a QEMU is told before, during and after it gives its VM away, seen from a monitor that keeps its settings.

import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { DeltaveeError } from "../../base/errors.ts";
import { LineSplitter } from "./lines.ts";
import { type MigrationSettings, QemuOutgoing } from "./outgoing.ts";

type Settings = Record<string, number | boolean | string>;

/** Arguments of those commands that are looked at. */
interface Given {
  capabilities?: { capability: string; state: boolean }[];
  "downtime-limit"?: number;
  uri?: string;
}

const DEFAULTS = {
  capabilities: {
    events: false,
    "return-path": false,
    xbzrle: false,
    multifd: false,
    "switchover-ack": false,
    "auto-converge": true,
  } as Settings,
  parameters: {
    "max-bandwidth": 5e6,
    "downtime-limit": 250,
    "avail-switchover-bandwidth": 0,
    "throttle-trigger-threshold": 40,
    "cpu-throttle-initial": 30,
    "cpu-throttle-increment": 15,
    "max-cpu-throttle": 98,
  } as Settings,
};

/** A monitor behind which nothing is but its settings, and a migration that connects and then does nothing. */
class Monitor {
  capabilities = { ...DEFAULTS.capabilities };
  parameters = { ...DEFAULTS.parameters };
  status = { status: "running", running: true };
  migration: Record<string, unknown> = {};
  major = 10;
  hasKvm = false;
  arch = "x86_64";
  ramBackends = 1;
  /** As HMP prints them. */
  ramBlocks = "";
  /** Values of downtime-limit in the order in which they were set. */
  readonly limits: number[] = [];
  readonly commands: string[] = [];
  /** A command that is refused: capabilities, as in a post-copy that was interrupted. */
  refuses: string | undefined;
  /** Another client's migration comes in between just before this command. */
  overtakenBefore: string | undefined;
  readonly sockets: Socket[] = [];
  server: Server | undefined;

  async listen(path: string): Promise<void> {
    this.server = createServer((socket) => {
      this.sockets.push(socket);
      socket.on("error", () => {});
      const qemu = { micro: 2, minor: 0, major: this.major };
      socket.write(`${JSON.stringify({ QMP: { version: { qemu, package: "" }, capabilities: [] } })}\r\n`);
      const lines = new LineSplitter(1 << 20);
      socket.on("data", (chunk) => {
        for (const line of lines.push(chunk)) {
          const { execute, arguments: given, id } = JSON.parse(line);
          this.commands.push(execute);
          if (execute === this.overtakenBefore) this.iterate(0, 1 << 20);
          const isRefused = execute === this.overtakenBefore || execute === this.refuses;
          const error = { class: "GenericError", desc: "There's a migration process in progress" };
          const answer = isRefused ? { error } : { return: this.#do(execute, given) };
          socket.write(`${JSON.stringify({ ...answer, id })}\r\n`);
        }
      });
    });
    await new Promise<void>((resolve) => this.server?.listen(path, resolve));
  }

  #do(command: string, given: Given): unknown {
    switch (command) {
      case "query-status":
        return this.status;
      case "query-migrate":
        return this.migration;
      case "query-migrate-capabilities":
        return Object.entries(this.capabilities).map(([capability, state]) => ({ capability, state }));
      case "query-migrate-parameters":
        return this.parameters;
      case "query-kvm":
        return { enabled: this.hasKvm, present: true };
      case "human-monitor-command":
        return this.ramBlocks;
      case "query-memdev":
        return Array.from({ length: this.ramBackends }, () => ({}));
      case "query-target":
        return { arch: this.arch };
      case "query-memory-size-summary":
        return { "base-memory": 1 << 29 };
      case "migrate-set-capabilities":
        for (const { capability, state } of given.capabilities ?? []) this.capabilities[capability] = state;
        return {};
      case "migrate-set-parameters":
        Object.assign(this.parameters, given);
        if (given["downtime-limit"] !== undefined) this.limits.push(given["downtime-limit"]);
        return {};
      case "migrate":
        this.sockets.push(createConnection(`${given.uri}`.slice("unix:".length)).on("error", () => {}));
        return {};
      default:
        return {};
    }
  }

  /** Its migration stops the guest, for the rest. */
  stopGuest(): void {
    this.status = { status: "finish-migrate", running: false };
    this.#raise("STOP", {});
  }

  /** QEMU has looked for dirty pages: for the first time before the first pass. */
  pass(pass: number): void {
    this.#raise("MIGRATION_PASS", { pass });
  }

  #raise(name: string, data: object): void {
    const event = { event: name, data, timestamp: { seconds: 0, microseconds: 0 } };
    this.sockets[0]!.write(`${JSON.stringify(event)}\r\n`);
  }

  /** What query-migrate says from now on. */
  iterate(iteration: number, remainingBytes: number, mbps = 80): void {
    const zeros = { transferred: 0, total: 0, duplicate: 0, normal: 0, "normal-bytes": 0 };
    const others = { "dirty-pages-rate": 0, "page-size": 4096, "multifd-bytes": 0, "pages-per-second": 0 };
    this.migration = {
      status: "active",
      ram: {
        ...{ ...zeros, ...others, "postcopy-requests": 0 },
        ...{ remaining: remainingBytes, mbps, "dirty-sync-count": iteration + 1 },
      },
    };
  }
}

let folder: string;
let monitor: Monitor;
let notices: string[];
const vms: QemuOutgoing[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "deltavee-outgoing-"));
  monitor = new Monitor();
  notices = [];
});

afterEach(async () => {
  for (const vm of vms.splice(0)) await vm.close();
  for (const socket of monitor.sockets) socket.destroy();
  await new Promise((resolve) => monitor.server?.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

async function open(mayThrottle = false, left?: MigrationSettings): Promise<QemuOutgoing> {
  const path = join(folder, "qmp.sock");
  await monitor.listen(path);
  const vm = await QemuOutgoing.open(
    { kind: "unix", path },
    { notice: (text) => notices.push(text), mayThrottle, left },
  );
  vms.push(vm);
  return vm;
}

async function begin(mayThrottle = false): Promise<QemuOutgoing> {
  const vm = await open(mayThrottle);
  (await vm.begin()).listen({ data() {}, drained() {}, ended() {}, failed() {} });
  return vm;
}

describe("a QEMU that can be told its bandwidth", () => {
  test("stops the guest at so many bytes exactly, and cannot before anybody has looked", async () => {
    const vm = await begin();
    expect(vm.switchoverControl).toBe("ack");
    expect(monitor.capabilities).toMatchObject({ "switchover-ack": true, "return-path": true });
    const thresholdBytes = () =>
      (Number(monitor.parameters["avail-switchover-bandwidth"]) / 1000) *
      Number(monitor.parameters["downtime-limit"]);
    // QEMU stops at less than its threshold: with nothing left.
    expect(thresholdBytes()).toBe(4096);
    for (const bytes of [4096 * 1000, 4096 * 20, 4096 * 1e6]) {
      await vm.limitSwitchover(bytes);
      expect(thresholdBytes()).toBe(bytes);
    }
  });

  test("is never given a limit of 0, nor one that it does not take", async () => {
    const vm = await begin();
    for (const bytes of [4096 * 50, 0, Number.MAX_SAFE_INTEGER]) await vm.limitSwitchover(bytes);
    expect(monitor.limits).toEqual([1, 50, 1, 2_000_000]);
  });

  test("is not told of every little change", async () => {
    const vm = await begin();
    for (const pages of [1000, 1040, 960, 1060]) await vm.limitSwitchover(pages * 4096);
    expect(monitor.limits).toEqual([1, 1000, 1060]);
  });
});

describe("a QEMU that measures its bandwidth itself", () => {
  beforeEach(() => {
    delete monitor.parameters["avail-switchover-bandwidth"];
  });

  test("gets its limit as time at the rate that it has measured", async () => {
    const vm = await begin();
    await vm.limitSwitchover(1e6);
    expect(monitor.limits).toEqual([1]);
    monitor.iterate(1, 0);
    await vm.status();
    // 80 Mbit/s are 10 MB/s.
    await vm.limitSwitchover(1e6);
    await vm.limitSwitchover(0);
    expect(monitor.limits).toEqual([1, 100, 1]);
    expect(monitor.parameters).not.toHaveProperty("avail-switchover-bandwidth");
  });

  test("decides by itself where it has no switchover-ack", async () => {
    delete monitor.capabilities["switchover-ack"];
    const vm = await begin();
    expect(vm.switchoverControl).toBe("limit");
    expect(monitor.capabilities).not.toHaveProperty("switchover-ack");
  });
});

test("what is left includes what the guest must have dirtied since QEMU looked", async () => {
  const vm = await begin();
  monitor.iterate(0, 64e6);
  expect(await vm.status()).toMatchObject({ iteration: 0, remainingBytes: 64e6 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  monitor.iterate(1, 32e6);
  await vm.status();
  monitor.iterate(1, 0);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await vm.status()).remainingBytes).toBeGreaterThan(1e6);
});

test("the end of the first pass is told when QEMU looks for dirty pages a second time", async () => {
  const vm = await begin();
  let ended = false;
  void vm.firstPassEnded.then(() => {
    ended = true;
  });
  monitor.pass(1);
  await vm.status();
  expect(ended).toBe(false);
  monitor.pass(2);
  await vm.firstPassEnded;
});

test("a guest that its migration has stopped is known to stand still, and to be one that runs", async () => {
  const vm = await begin();
  expect(await vm.status()).toMatchObject({ isStopped: false });
  monitor.stopGuest();
  await vi.waitUntil(async () => (await vm.status()).isStopped, { timeout: 10_000 });
  expect(vm.wasRunning).toBe(true);
});

test("pages of a post-copy come in the one stream, and the source keeps what it has sent", async () => {
  for (const name of ["release-ram", "postcopy-preempt"]) monitor.capabilities[name] = true;
  const vm = await begin();
  expect(monitor.capabilities).toMatchObject({ "release-ram": false, "postcopy-preempt": false });
  await vm.close();
  expect(monitor.capabilities).toMatchObject({ "release-ram": true, "postcopy-preempt": true });
});

describe("when it is over", () => {
  test("QEMU has the settings that it had before, all of them", async () => {
    monitor.capabilities.xbzrle = true;
    const before = { ...monitor.capabilities };
    const vm = await begin();
    expect(monitor.capabilities.xbzrle).toBe(false);
    await vm.limitSwitchover(1e9);
    await vm.cancel();
    await vm.close();
    expect(monitor.capabilities).toEqual(before);
    expect(monitor.parameters).toEqual(DEFAULTS.parameters);
  });

  test("QEMU has its parameters again even where it takes no capabilities", async () => {
    const vm = await open();
    await vm.begin();
    monitor.refuses = "migrate-set-capabilities";
    await vm.close();
    expect(monitor.parameters).toEqual(DEFAULTS.parameters);
    expect(notices.at(-1)).toContain("were not put back");
  });

  test("nothing was changed where no migration has begun", async () => {
    await (await open()).close();
    expect(monitor.commands.filter((command) => command.includes("set"))).toEqual([]);
  });
});

describe("settings that were there before", () => {
  test("the operator's own switchover-ack means that the destination's is waited for", async () => {
    monitor.capabilities["switchover-ack"] = true;
    const vm = await begin();
    expect(vm.awaitsDestinationAck).toBe(true);
    await vm.close();
    expect(monitor.capabilities["switchover-ack"]).toBe(true);
  });

  test("what was set for another purpose is off meanwhile, which is said, and is there again afterwards", async () => {
    const others = ["multifd", "zero-copy-send", "mapped-ram", "background-snapshot", "x-colo", "compress"];
    Object.assign(monitor.capabilities, Object.fromEntries(others.map((name) => [name, true])));
    Object.assign(monitor.parameters, { mode: "cpr-reboot" });
    const vm = await begin();
    for (const name of others) {
      expect(monitor.capabilities[name], name).toBe(false);
      expect(notices).toContain(`QEMU's capability ${name} is off during this migration`);
    }
    expect(monitor.parameters.mode).toBe("normal");
    await vm.close();
    for (const name of others) expect(monitor.capabilities[name], name).toBe(true);
    expect(monitor.parameters.mode).toBe("cpr-reboot");
  });

  test("what a killed Deltavee had to put back is put back by the next, which may do more", async () => {
    const killed = await begin();
    const left = killed.settings;
    const { capabilities, parameters } = monitor;
    vms.pop();
    monitor.server?.close();
    monitor = new Monitor();
    Object.assign(monitor, { capabilities, parameters });
    await rm(join(folder, "qmp.sock"), { force: true });
    const next = await open(true, left);
    (await next.begin()).listen({ data() {}, drained() {}, ended() {}, failed() {} });
    expect(monitor.capabilities["auto-converge"]).toBe(true);
    expect(monitor.parameters["max-cpu-throttle"]).not.toBe(99);
    await next.close();
    expect(monitor.capabilities).toEqual(DEFAULTS.capabilities);
    expect(monitor.parameters).toEqual(DEFAULTS.parameters);
    await killed.close();
  });

  test("what a killed Deltavee had to put back is put back also by one that comes to nothing", async () => {
    Object.assign(monitor.parameters, { "max-bandwidth": 999_999_999_937, "downtime-limit": 1 });
    const left = { capabilities: [], parameters: { "max-bandwidth": 5e6, "downtime-limit": 250 } };
    const vm = await open(false, left);
    await vm.close();
    expect(monitor.parameters).toEqual(DEFAULTS.parameters);
  });

  test("one that comes to nothing leaves a QEMU alone whose settings are the operator's", async () => {
    const vm = await open();
    await vm.close();
    expect(monitor.commands.filter((command) => command.startsWith("migrate-set"))).toEqual([]);
  });

  test("what a killed Deltavee has left behind is not taken for the operator's", async () => {
    // Nothing ends this one: its settings stay.
    await begin();
    const [{ capabilities, parameters }, killed] = [monitor, vms.pop()];
    for (const socket of monitor.sockets) socket.destroy();
    await new Promise((resolve) => monitor.server?.close(resolve));
    monitor = new Monitor();
    Object.assign(monitor, { capabilities, parameters });
    const vm = await begin();
    expect(notices.join()).toContain("of a Deltavee that was killed");
    expect(vm.awaitsDestinationAck).toBe(false);
    await vm.close();
    expect(monitor.parameters).toEqual({
      ...DEFAULTS.parameters,
      ...{ "max-bandwidth": 128 * 1024 * 1024, "downtime-limit": 300 },
    });
    expect(monitor.capabilities).toEqual(DEFAULTS.capabilities);
    await killed?.close();
  });
});

describe("vCPUs", () => {
  const throttled = ({ parameters }: Monitor) =>
    ["cpu-throttle-initial", "cpu-throttle-increment", "max-cpu-throttle"].map((name) => parameters[name]);

  test("are left to QEMU and to the operator where nobody has allowed us to slow them down", async () => {
    monitor.capabilities["auto-converge"] = true;
    const vm = await begin();
    expect(vm.throttle).toBeUndefined();
    expect(monitor.capabilities["auto-converge"]).toBe(true);
    expect(throttled(monitor)).toEqual([30, 15, 98]);
  });

  test("are slowed down by what we say, from hardly anything on, and QEMU has its settings back at the end", async () => {
    monitor.capabilities["auto-converge"] = false;
    const before = { ...monitor.capabilities };
    const vm = await begin(true);
    expect(monitor.capabilities["auto-converge"]).toBe(true);
    expect(throttled(monitor)).toEqual([1, 1, 1]);
    expect(monitor.parameters["throttle-trigger-threshold"]).toBe(1);
    await vm.throttle?.(60);
    expect(throttled(monitor)).toEqual([60, 60, 60]);
    await vm.throttle?.(100);
    expect(throttled(monitor)).toEqual([99, 99, 99]);
    await vm.throttle?.(0);
    expect(throttled(monitor)).toEqual([1, 1, 1]);
    await vm.close();
    expect(monitor.capabilities).toEqual(before);
    expect(monitor.parameters).toEqual(DEFAULTS.parameters);
  });

  test("are not slow for ever where a Deltavee was killed", async () => {
    await (await begin(true)).throttle?.(80);
    const [{ capabilities, parameters }, killed] = [monitor, vms.pop()];
    for (const socket of monitor.sockets) socket.destroy();
    await new Promise((resolve) => monitor.server?.close(resolve));
    monitor = new Monitor();
    Object.assign(monitor, { capabilities, parameters });
    await (await begin()).close();
    expect(throttled(monitor)).toEqual([20, 10, 99]);
    expect(monitor.capabilities["auto-converge"]).toBe(false);
    await killed?.close();
  });
});

test.each([
  { major: 7, hasKvm: false, isWeak: true },
  { major: 9, hasKvm: false, isWeak: true },
  { major: 7, hasKvm: true, isWeak: false },
  { major: 10, hasKvm: false, isWeak: false },
  { major: 10, hasKvm: false, ramBackends: 2, isWeak: true },
  { major: 10, hasKvm: true, ramBackends: 2, isWeak: false },
])(
  "QEMU $major, with KVM: $hasKvm, RAM backends: $ramBackends: what it does to guests by itself is known",
  async (qemu) => {
    Object.assign(monitor, qemu);
    const weakness = await (await open()).weakness();
    expect(weakness !== undefined).toBe(qemu.isWeak);
    if (weakness !== undefined) expect(weakness).toMatch(/^Without KVM, QEMU \d+\.0\.2 loses writes .*\.$/);
  },
);

describe("a guest whose QEMU would die of its migration", () => {
  const line = (name: string, offset: number, used: number, total = used) =>
    `${name} 4 KiB ${[offset, used, total].map((bytes) => `0x${bytes.toString(16).padStart(16, "0")}`).join(" ")}\n`;
  const MIB = 1 << 20;
  const dimmFirst = line("pc.ram", 128 * MIB, 256 * MIB) + line("dimm", 0, 128 * MIB);
  beforeEach(() => Object.assign(monitor, { hasKvm: false, major: 10, ramBlocks: dimmFirst }));

  test("is left alone", async () => {
    await expect(open()).rejects.toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
      message: expect.stringMatching(/\(dimm, 134 MB\).*\(pc\.ram, 268 MB\)\. The guest was not touched/),
    });
    expect(monitor.commands.filter((command) => command.includes("set"))).toEqual([]);
  });

  test.each<[string, object]>([
    ["with KVM", { hasKvm: true }],
    ["where it does not look out for writes yet", { major: 7 }],
    ["paused", { status: { status: "paused", running: false } }],
    [
      "with the largest RAM first",
      { ramBlocks: line("pc.ram", 0, 256 * MIB) + line("dimm", 256 * MIB, 128 * MIB) },
    ],
    [
      "where the first may grow as large",
      { ramBlocks: line("a", 0, MIB, 2 * MIB) + line("b", 4 * MIB, 2 * MIB) },
    ],
    ["where QEMU does not say", { ramBlocks: "" }],
  ])("but not %s", async (_where, qemu) => {
    Object.assign(monitor, qemu);
    await expect(open()).resolves.toBeDefined();
  });
});

test("a VM whose architecture QEMU cannot migrate is left alone", async () => {
  monitor.arch = "sparc64";
  await expect(open()).rejects.toMatchObject({ code: "HYPERVISOR_INCOMPATIBLE" });
  expect(monitor.commands.filter((command) => command.includes("set"))).toEqual([]);
});

test("a VM that is being migrated already is left alone", async () => {
  monitor.iterate(1, 0);
  const error = await open().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(DeltaveeError);
  expect(error).toMatchObject({ code: "HYPERVISOR_FAILED" });
  expect(monitor.commands.filter((command) => command.includes("set"))).toEqual([]);
});

test.each(["migrate-set-capabilities", "migrate"])(
  "a migration that another client begins just before our %s is neither cancelled nor given other settings",
  async (command) => {
    const vm = await open();
    monitor.overtakenBefore = command;
    await expect(vm.begin()).rejects.toMatchObject({
      code: "HYPERVISOR_FAILED",
      message: "QEMU is migrating this VM already (active)",
    });
    const from = monitor.commands.lastIndexOf(command) + 1;
    await vm.cancel();
    await vm.close();
    expect(monitor.commands.slice(from)).toEqual(["query-migrate"]);
  },
);

test("a migration that QEMU refuses for another reason is not cancelled, and its settings are put back", async () => {
  const vm = await open();
  monitor.refuses = "migrate";
  await expect(vm.begin()).rejects.toMatchObject({ code: "QMP_COMMAND_REFUSED" });
  await vm.cancel();
  await vm.close();
  expect(monitor.commands).not.toContain("migrate_cancel");
  expect(monitor.parameters).toEqual(DEFAULTS.parameters);
});
