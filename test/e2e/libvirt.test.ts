// `virsh migrate --live`, unmodified, through `deltavee proxy`: two session daemons of Debian's libvirt with QEMU 10.0, a
// domain whose guest dirties its memory faster than the link between the proxies carries it. What was tried by hand
// besides, and with which versions: docs/libvirt.md.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  findLibvirts,
  LIBVIRT_USER_ID,
  type Libvirt,
  type LibvirtBinary,
  startLibvirt,
} from "../support/libvirt.ts";
import { ended, listeningAddress } from "../support/migration.ts";
import { freePort, runCli } from "../support/processes.ts";
import { type Proxies, type ProxyOptions, startProxies } from "../support/proxies.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { eventsOf } from "./scene.ts";

/** 16 MB/s of pages that no compression makes smaller, over a link of 12.5 MB/s. */
const BUSY = "ws=32768 rate=4000 pattern=sparse fill=random";
const LIGHT = "ws=16384 rate=500 pattern=sparse fill=random";
/** Passes over the guest's memory in which it has come no nearer to its end. */
const HOPELESS_PASSES = 6;
const WATCH_EVERY_MS = 250;
/** On one machine the two sides' ports are told apart by their addresses. */
const SOURCE_SIDE = "127.0.0.2";
const DESTINATION_SIDE = "127.0.0.3";

const { installed, eleven } = findLibvirts();
const binary = findQemus().get("10.0");
let libvirt: Libvirt;

describe.skipIf(installed === undefined || binary === undefined)(`virsh migrate, ${installed?.name}`, () => {
  withDaemons(installed!);

  test("without Deltavee a busy guest does not get over the link", async () => {
    await libvirt.startDomain(BUSY);
    const port = await freePort();
    const [listen, to] = [`${SOURCE_SIDE}:${port}`, `${DESTINATION_SIDE}:${port}`];
    const relay = await runCli(["relay", "--listen", listen, "--to", to, "--rate", "100mbit", "--json"]);
    onTestFinished(async () => void (await relay.stop()));
    await listeningAddress(relay);
    const migrated = libvirt.migrate(...tcp(port));
    const job = await watchJob((info) => Number(info.get("Iteration")) > HOPELESS_PASSES);
    expect(job.get("Operation")).toBe("Outgoing migration");
    expect(await libvirt.virsh("domjobabort", "deltavee-test")).toMatchObject({ code: 0 });
    expect(await migrated).toMatchObject({ code: 1 });
    await expectAtSource();
  });

  test("tunnel, unix: with it the same guest does, and virsh sees it as any other migration", async () => {
    await libvirt.startDomain(BUSY);
    const proxies = await overUnix();
    const migrated = libvirt.migrate("--migrateuri", `unix://${join(libvirt.folder, "own/vm.sock")}`);
    const job = await watchJob((info) => info.get("Iteration") !== undefined);
    expect(job.get("Memory total")).toBeDefined();
    expect(await migrated).toMatchObject({ code: 0, stderr: "" });
    await expectMoved(proxies);
  });

  test("tunnel, TCP, --p2p", async () => {
    await libvirt.startDomain(BUSY);
    const { proxies, port } = await overTcp("tunnel");
    expect(await libvirt.migrate("--p2p", ...tcp(port))).toMatchObject({ code: 0, stderr: "" });
    await expectMoved(proxies);
  });

  test("direct, TCP: nothing of Deltavee's runs at the destination", async () => {
    await libvirt.startDomain(BUSY);
    const { proxies, port } = await overTcp("direct");
    expect(await libvirt.migrate(...tcp(port))).toMatchObject({ code: 0, stderr: "" });
    await expectMoved(proxies);
  });

  test("virsh domjobabort half way, then the proxy killed half way, then none there: the guest stays", async () => {
    await libvirt.startDomain(LIGHT);
    const { proxies, port } = await overTcp("tunnel", { rate: "20mbit" });
    const aborted = libvirt.migrate(...tcp(port));
    await proxies.waitForWireBytes(4e6);
    expect(await libvirt.virsh("domjobabort", "deltavee-test")).toMatchObject({ code: 0 });
    expect(await aborted).toMatchObject({ code: 1 });
    expect(await proxies.waitForSummary()).toMatchObject({ outcome: "failed", vm: "running on source" });
    await expectAtSource();

    const cut = libvirt.migrate(...tcp(port));
    await proxies.waitForWireBytes(4e6);
    proxies.source.kill("SIGKILL");
    expect(await cut).toMatchObject({ code: 1 });
    await expectAtSource();

    const { code, stderr } = await libvirt.migrate(...tcp(port));
    expect(code).toBe(1);
    expect(stderr).toContain("Connection refused");
    await expectAtSource();
  });

  test("virsh migrate --parallel is refused, and the guest stays", async () => {
    await libvirt.startDomain(LIGHT);
    const { proxies, port } = await overTcp("tunnel");
    const parallel = ["--parallel", "--parallel-connections", "2"];
    expect(await libvirt.migrate(...parallel, ...tcp(port))).toMatchObject({ code: 1 });
    const isRefusal = ({ text }: { text: string }) =>
      text.includes("HYPERVISOR_INCOMPATIBLE") && text.includes("parallel channels");
    await proxies.source.stderr.waitFor(isRefusal, "the refusal", { timeoutMs: 120_000 });
    await expectAtSource();
  });

  test("a destination's QEMU at the same path on the same host goes past the proxy, which says so", async () => {
    await libvirt.startDomain(LIGHT);
    const path = join(libvirt.folder, "vm.sock");
    const proxies = await started({ mode: "direct", listen: `unix:${path}`, connect: "tcp:127.0.0.1:9" });
    libvirt.give(path);
    expect(await libvirt.migrate("--migrateuri", `unix://${path}`)).toMatchObject({ code: 0 });
    const { code, stderr } = await ended(proxies.source);
    expect(code).toBe(1);
    expect(stderr).toContain("SOCKET_REPLACED");
    expect(eventsOf(proxies.events(), "run")).toEqual([]);
  });
});

describe.skipIf(eleven === undefined || binary === undefined)(`virsh migrate, ${eleven?.name}`, () => {
  withDaemons(eleven!);

  test.each(["tunnel", "direct"] as const)(
    "%s, TCP: libvirt turns switchover-ack on by itself, and the proxy holds it until it is time",
    async (mode) => {
      await libvirt.startDomain(BUSY);
      const { proxies, port } = await overTcp(mode);
      expect(await libvirt.migrate(...tcp(port))).toMatchObject({ code: 0, stderr: "" });
      await expectMoved(proxies);
      const decisions = eventsOf(proxies.events(), "decision");
      const switchovers = decisions.filter(({ subject }) => subject === "switchover");
      expect(switchovers.map(({ choice }) => choice)).toContain("now");
    },
  );
});

function withDaemons(which: LibvirtBinary): void {
  beforeAll(async () => {
    libvirt = await startLibvirt(binary!, which);
  });
  afterEach(() => libvirt.destroyDomains());
  afterAll(() => libvirt.stop());
}

async function started(options: ProxyOptions): Promise<Proxies> {
  const proxies = await startProxies(options);
  onTestFinished(() => proxies.stop());
  return proxies;
}

async function overTcp(
  mode: "direct" | "tunnel",
  options: Partial<ProxyOptions> = {},
): Promise<{ proxies: Proxies; port: number }> {
  const port = await freePort();
  const [listen, connect] = [`${SOURCE_SIDE}:${port}`, `tcp:${DESTINATION_SIDE}:${port}`];
  const sourceArguments = ["--allow-user", `${LIBVIRT_USER_ID}`, ...(options.sourceArguments ?? [])];
  return { proxies: await started({ mode, listen, connect, ...options, sourceArguments }), port };
}

/** One path, which is another file at each side. */
async function overUnix(): Promise<Proxies> {
  const at = (folder: string) => `unix:${join(folder, "vm.sock")}`;
  const { source, destination } = libvirt;
  const proxies = await started({ mode: "tunnel", listen: at(source.own), connect: at(destination.own) });
  expect(existsSync(join(source.own, "vm.sock"))).toBe(true);
  libvirt.give(join(source.own, "vm.sock"));
  return proxies;
}

async function watchJob(isEnough: (info: Map<string, string>) => boolean): Promise<Map<string, string>> {
  for (;;) {
    const info = await libvirt.jobInfo();
    if (isEnough(info)) return info;
    await sleep(WATCH_EVERY_MS);
  }
}

/** The guest counts on at the destination, whole, and the source has it no more. */
async function expectMoved(proxies: Proxies): Promise<void> {
  const summary = await proxies.waitForSummary();
  expect(summary).toMatchObject({ outcome: "completed", vm: "with the destination" });
  expect(summary.pages.deltaPages).toBeGreaterThan(0);
  expect(summary.wireBytes).toBeLessThan(summary.handedOverBytes);
  expect(await libvirt.source.domains()).toEqual([]);
  expect(await libvirt.destination.domains()).toEqual(["deltavee-test"]);
  await expectWhole(libvirt.destination);
}

async function expectAtSource(): Promise<void> {
  expect(await libvirt.source.domains()).toEqual(["deltavee-test"]);
  expect(await libvirt.destination.domains()).toEqual([]);
  await expectWhole(libvirt.source);
}

async function expectWhole(host: Libvirt["source"]): Promise<void> {
  const serial = await libvirt.serialOf(host);
  try {
    await serial.waitForHeartbeats(20);
    expect(await serial.verify()).toMatchObject({ ok: true, badPages: 0 });
  } finally {
    serial.close();
  }
}

function tcp(port: number): string[] {
  return ["--migrateuri", `tcp://${SOURCE_SIDE}:${port}`, "--listen-address", DESTINATION_SIDE];
}
