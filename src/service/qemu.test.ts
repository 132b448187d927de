// What a migration of the service is given: each of the settings, and what was wished of it alone; and which VMs it takes.

import { beforeEach, expect, test, vi } from "vitest";
import { QmpClient } from "../hypervisor/qemu/qmp.ts";
import type { MigrationSpec } from "../library/migration.ts";
import { CACHE_SHARE_MAX } from "../library/run.ts";
import type { SourceQueue } from "../library/sources.ts";
import { parseAddress } from "../link/address.ts";
import { orderFor, pathFor, securityOf, waitingAt } from "./qemu.ts";
import type { Runs } from "./runs.ts";
import { parseSettings } from "./settings-file.ts";

const { migrations, receptions } = vi.hoisted(() => ({
  migrations: [] as unknown[],
  receptions: [] as unknown[],
}));
vi.mock("../library/migration.ts", () => ({
  runMigration: async (spec: unknown) => void migrations.push(spec),
}));
vi.mock("../library/reception.ts", () => ({
  takeIn: async (spec: unknown) => void receptions.push(spec),
}));

const qmp = { kind: "unix", path: "/run/vms/web.qmp" } as const;
const runs = { opener: () => async () => ({}) } as unknown as Runs;
const context = { id: "1", signal: new AbortController().signal, listener: () => {} };

function answer(status: string): void {
  const answers: Record<string, unknown> = {
    "query-name": { name: "web-1" },
    "query-uuid": { UUID: "00000000-0000-0000-0000-000000000000" },
    "query-status": { status },
  };
  const client = { execute: async (command: string) => answers[command], close: () => {} };
  vi.spyOn(QmpClient, "connect").mockResolvedValue(client as unknown as QmpClient);
}

function moves(text: string) {
  return { settings: parseSettings(text, "/serve.yaml"), runs, link: undefined };
}

beforeEach(() => {
  migrations.length = 0;
  receptions.length = 0;
});

const OUTGOING = `
stateDir: /run/state
tls: { dir: /pki, keysDir: /keys, insecurePlaintext: true }
outgoing: { concurrent: 5, weight: 3, maxDowntime: 2s, maxTime: 3m, maxBytes: 1GB, onStall: abort, cacheSize: 1MiB, forecast: false }
`;
const GIVEN = {
  tlsDir: "/pki",
  keysDir: "/keys",
  insecurePlaintext: true,
  downtimeMsMax: 2000,
  timeMsMax: 180_000,
  wireBytesMax: 1e9,
  onStall: "abort",
  cacheBytesMax: 2 ** 20,
  cacheShareMax: CACHE_SHARE_MAX / 5,
  stateDir: "/run/state",
  hasForecast: false,
} satisfies Partial<MigrationSpec>;

test("one that leaves has what the settings say of it", async () => {
  answer("running");
  const order = await orderFor({ qmp, to: parseAddress("deltavee://host2:4445") }, moves(OUTGOING));
  expect(order).toMatchObject({ vm: "web-1", weight: 3, peer: "deltavee://host2:4445" });
  await order.move(context);
  expect(migrations).toEqual([expect.objectContaining(GIVEN)]);
});

test("what was wished of it alone comes before the settings", async () => {
  answer("running");
  const wish = {
    ...{ qmp, to: parseAddress("deltavee://host2:4445"), tlsHostname: "other", weight: 0.5 },
    ...{ linkBytesPerSecondMax: 9, downtimeMsMax: 10, timeMsMax: 11, wireBytesMax: 12 },
    onStall: "throttle",
  } as const;
  const order = await orderFor(wish, moves(OUTGOING));
  expect(order.weight).toBe(0.5);
  await order.move(context);
  expect(migrations).toEqual([
    expect.objectContaining({
      ...{ tlsHostname: "other", linkBytesPerSecondMax: 9, downtimeMsMax: 10, timeMsMax: 11 },
      ...{ wireBytesMax: 12, onStall: "throttle" },
    }),
  ]);
});

test("to a stock QEMU it goes as it is: there is nobody to prove anything to", async () => {
  answer("running");
  const order = await orderFor({ qmp, to: parseAddress("tcp:host2:4444") }, moves(OUTGOING));
  await order.move(context);
  const [{ tlsDir, insecurePlaintext }] = migrations as [MigrationSpec];
  expect([tlsDir, insecurePlaintext]).toEqual([undefined, undefined]);
});

test.each(["inmigrate", "postmigrate"])("a QEMU that is %s has no guest to give", async (status) => {
  answer(status);
  await expect(orderFor({ qmp, to: parseAddress("tcp:h:1") }, moves(""))).rejects.toThrow(/no guest to give/);
});

test("one that comes is taken in as the settings say", async () => {
  answer("inmigrate");
  const text = `
stateDir: /run/state
incoming: { paused: true, baselineSize: 2MiB, reconnectTimeout: 7s }
`;
  const waiting = await waitingAt(qmp, undefined, moves(text));
  expect(waiting.names).toEqual({ name: "web-1" });
  await waiting.takeIn({} as SourceQueue, context);
  expect(receptions).toEqual([
    expect.objectContaining({
      ...{ paused: true, baselineBytesMax: 2 ** 21, reconnectTimeoutMs: 7000, stateDir: "/run/state" },
    }),
  ]);
});

test("a name leads to its own monitor, and nowhere else", () => {
  expect(pathFor("/run/vms/{name}.qmp", { name: "web-1" })).toBe("/run/vms/web-1.qmp");
  expect(pathFor("/run/{uuid}", { uuid: "1234-5" })).toBe("/run/1234-5");
  for (const name of ["../x", "a/b", ".hidden", "", "x".repeat(101)])
    expect(pathFor("/run/vms/{name}.qmp", { name })).toBeUndefined();
  expect(pathFor("/run/vms/{name}.qmp", { uuid: "1" })).toBeUndefined();
});

test("security is that of the command line's options", () => {
  expect(securityOf(parseSettings("tls: { dir: /pki, keysDir: /keys }", "/s.yaml"))).toEqual({
    tlsDir: "/pki",
    keysDir: "/keys",
  });
});
