// `deltavee proxy` between two QEMUs 10.0 that a test manages as libvirt does: return path on, the destination started
// with -S, and let run when the source has completed. With libvirt itself: libvirt.test.ts.

import { lstatSync, renameSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { MigrationCapability } from "../../src/hypervisor/qemu/qmp-types.ts";
import { Authority, writeTlsFolder } from "../support/certificates.ts";
import { ended, type Mode } from "../support/migration.ts";
import { freePort, tempFolder } from "../support/processes.ts";
import { type Proxies, type ProxyOptions, startProxies } from "../support/proxies.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import {
  eventsOf,
  expectMoved,
  expectStillOnSource,
  HEARTBEATS,
  HEAVY_LOAD,
  LIGHT_LOAD,
  startPair,
} from "./scene.ts";

const binary = findQemus().get("10.0");

describe.skipIf(binary === undefined)("deltavee proxy between QEMU 10.0 and 10.0", () => {
  test.each([
    ["tunnel", true],
    ["direct", true],
    ["tunnel", false],
    ["direct", false],
  ] as const)("%s, switchover-ack %s: a guest under load arrives whole, by deltas", async (mode, withAck) => {
    const { source, destination, proxies } = await scene(mode, HEAVY_LOAD, withAck);
    await migrate(source, proxies);
    const summary = await proxies.waitForSummary();
    expect(summary).toMatchObject({ outcome: "completed", vm: "with the destination" });
    expect(summary.pages.deltaPages).toBeGreaterThan(0);
    expect(summary.wireBytes).toBeLessThan(summary.handedOverBytes);
    const events = proxies.events();
    const phases = eventsOf(events, "phase").map(({ phase }) => phase);
    expect(phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
    expect(eventsOf(events, "opaque")).toEqual([]);
    const held = eventsOf(events, "decision").filter(({ subject }) => subject === "switchover");
    expect(held.map(({ choice }) => choice).includes("now")).toBe(withAck);
    await letRun(destination);
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    expect(proxies.source.stderrTail()).toBe("");
  });

  test("tunnel, by certificates: a host that may not come in is refused, the one that may hands over", async () => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    const authority = new Authority();
    const files = (name: string, host: string) =>
      writeTlsFolder(join(folder.path, name), authority, authority.issue([host]));
    const destinationFiles = ["--tls-dir", files("destination", "127.0.0.1"), "--allow", "source.example"];
    const { source, destination, port, proxies } = await scene("tunnel", LIGHT_LOAD, true, {
      sourceArguments: ["--tls-dir", files("stranger", "stranger.example")],
      destinationArguments: destinationFiles,
    });
    await migrate(source, proxies);
    expect(await endOfMigration(source)).toBe("failed");
    const isRefusal = ({ text }: { text: string }) => text.includes("NOT_AUTHORISED");
    await proxies.source.stderr.waitFor(isRefusal, "the refusal", { timeoutMs: 120_000 });
    await source.waitForHeartbeats(HEARTBEATS);
    expect(await destination.qmp.execute("query-status")).toMatchObject({ status: "inmigrate" });
    await proxies.stop();

    const again = await proxiesFor({
      ...{ mode: "tunnel", listen: proxies.address, connect: `tcp:127.0.0.1:${port}` },
      sourceArguments: ["--tls-dir", files("source", "source.example")],
      destinationArguments: destinationFiles,
    });
    await migrate(source, again);
    expect(await endOfMigration(source)).toBe("completed");
    await letRun(destination);
    await expectMoved(source, destination);
  });

  test("one migration after the other: after one that found no QEMU the next goes through", async () => {
    const { source, destination, proxies, port } = await scene("tunnel", LIGHT_LOAD, true, { waits: false });
    await migrate(source, proxies);
    expect(await endOfMigration(source)).toBe("failed");
    await proxies.source.stderr.waitFor(({ text }) => text.includes("QEMU does not wait"), "the reason", {
      timeoutMs: 120_000,
    });
    expect(proxies.source.stderrTail()).toContain("the VM is: running on source");
    await source.waitForHeartbeats(HEARTBEATS);
    await destination.qmp.execute("migrate-incoming", { uri: `tcp:127.0.0.1:${port}` });
    await migrate(source, proxies);
    expect(await endOfMigration(source)).toBe("completed");
    await letRun(destination);
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true });
    await proxies.source.stop();
    expect(await proxies.source.exited).toMatchObject({ code: 0 });
    const records = proxies.records("source").map((events) => events.at(-1));
    expect(records).toMatchObject([{ outcome: "failed", vm: "running on source" }, { outcome: "completed" }]);
  });

  test("two at a time: at one port the second is refused at once; with a proxy of its own it goes through", async () => {
    const [first, second] = [
      await scene("tunnel", HEAVY_LOAD, true),
      await scene("tunnel", LIGHT_LOAD, true),
    ];
    await migrate(first.source, first.proxies);
    await first.proxies.waitForWireBytes(1e6);
    await migrate(second.source, first.proxies);
    expect(await endOfMigration(second.source)).toBe("failed");
    const isRefusal = ({ text }: { text: string }) =>
      text.includes("PROTOCOL_REFUSED") && text.includes("Another migration is under way here");
    await first.proxies.source.stderr.waitFor(isRefusal, "the refusal", { timeoutMs: 20_000 });
    await expectStillOnSource(second.source, second.destination);
    await migrate(second.source, second.proxies);
    for (const { source, destination } of [second, first]) {
      expect(await endOfMigration(source)).toBe("completed");
      await letRun(destination);
      await expectMoved(source, destination);
    }
  });

  test.each([
    ["multifd", "parallel channels"],
    ["postcopy-ram", "post-copy"],
  ] as const)("%s is refused, and the guest goes on", async (capability, what) => {
    const { source, destination, proxies } = await scene("tunnel", LIGHT_LOAD, true);
    await setCapabilities(source, { [capability]: true });
    await migrate(source, proxies);
    expect(await endOfMigration(source)).toBe("failed");
    const said = ({ text }: { text: string }) =>
      text.includes("HYPERVISOR_INCOMPATIBLE") && text.includes(what);
    await proxies.source.stderr.waitFor(said, "the refusal", { timeoutMs: 120_000 });
    await expectStillOnSource(source, destination);
  });

  test("a proxy that is killed half way leaves the guest at the source", async () => {
    const { source, destination, proxies } = await scene("tunnel", HEAVY_LOAD, true);
    await migrate(source, proxies);
    await proxies.waitForWireBytes(8e6);
    proxies.source.kill("SIGKILL");
    expect(await endOfMigration(source)).toBe("failed");
    await expectStillOnSource(source, destination);
  });

  test("a proxy that is told to end half way gives the migration up first", async () => {
    const { source, destination, proxies } = await scene("tunnel", HEAVY_LOAD, true);
    await migrate(source, proxies);
    await proxies.waitForWireBytes(8e6);
    proxies.source.kill("SIGTERM");
    expect(await ended(proxies.source)).toMatchObject({ code: 0 });
    expect(proxies.records("source")[0]!.at(-1)).toMatchObject({
      outcome: "cancelled",
      vm: "running on source",
    });
    expect(await endOfMigration(source)).toBe("failed");
    await expectStillOnSource(source, destination);
  });

  test("at the destination, where nobody has come, it ends when it is told to", async () => {
    const proxies = await proxiesFor({ mode: "tunnel", listen: "127.0.0.1:0", connect: "tcp:127.0.0.1:9" });
    proxies.destination!.kill("SIGTERM");
    expect(await ended(proxies.destination!)).toMatchObject({ code: 0 });
  });

  test("whoever takes its path away is found out, and keeps it", async () => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    const path = join(folder.path, "vm.sock");
    const proxies = await startProxies({
      mode: "direct",
      listen: `unix:${path}`,
      connect: "tcp:127.0.0.1:9",
    });
    onTestFinished(() => proxies.stop());
    const other = createServer();
    onTestFinished(() => void other.close());
    await new Promise<void>((resolve) => other.listen(join(folder.path, "other.sock"), resolve));
    renameSync(join(folder.path, "other.sock"), path);
    const { ino } = lstatSync(path);
    const { code, stderr } = await ended(proxies.source);
    expect(code).toBe(1);
    expect(stderr).toContain("SOCKET_REPLACED: The socket at");
    expect(lstatSync(path).ino).toBe(ino);
  });
});

interface SceneOptions extends Pick<ProxyOptions, "sourceArguments" | "destinationArguments"> {
  /** The destination's QEMU listens. */
  waits?: boolean;
}

async function scene(mode: Mode, append: string, withAck: boolean, options: SceneOptions = {}) {
  const { waits = true, ...proxyOptions } = options;
  const { source, destination } = await startPair({ binary: binary!, append }, { paused: true });
  await setCapabilities(source, { events: true, "return-path": true, "switchover-ack": withAck });
  await setCapabilities(destination, { events: true, "return-path": true, "switchover-ack": withAck });
  const port = await freePort();
  const connect = `tcp:127.0.0.1:${port}`;
  if (waits) await destination.qmp.execute("migrate-incoming", { uri: connect });
  const proxies = await proxiesFor({
    mode,
    listen: `unix:${join(source.folder, "vm.sock")}`,
    connect,
    ...proxyOptions,
  });
  return { source, destination, proxies, port };
}

async function proxiesFor(options: ProxyOptions): Promise<Proxies> {
  const proxies = await startProxies(options);
  onTestFinished(() => proxies.stop());
  return proxies;
}

async function setCapabilities(
  vm: QemuVm,
  wanted: Partial<Record<MigrationCapability, boolean>>,
): Promise<void> {
  const capabilities = Object.entries(wanted).map(([capability, state]) => ({
    capability: capability as MigrationCapability,
    state,
  }));
  await vm.qmp.execute("migrate-set-capabilities", { capabilities });
}

async function migrate(source: QemuVm, { address }: Proxies): Promise<void> {
  await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 10_000_000_000 });
  await source.qmp.execute("migrate", { uri: address });
}

async function endOfMigration(source: QemuVm): Promise<string | undefined> {
  for (;;) {
    const { status } = await source.qmp.execute("query-migrate");
    if (status === "completed" || status === "failed" || status === "cancelled") return status;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** As libvirt does when the source has completed. */
async function letRun(destination: QemuVm): Promise<void> {
  await destination.qmp.execute("cont");
}
