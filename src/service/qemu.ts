// VMs under QEMU as the service moves them: found by their monitors, known by the names that QEMU has for them, moved as
// `deltavee migrate` and `deltavee receive` would move them.

import { existsSync } from "node:fs";
import { basename } from "node:path";
import { DeltaveeError } from "../base/errors.ts";
import type { StallPolicy } from "../engine/switchover/stall-policies.ts";
import { type QmpAddress, QmpClient } from "../hypervisor/qemu/qmp.ts";
import type { SecurityOptions } from "../library/identity.ts";
import { runMigration } from "../library/migration.ts";
import { qemuDestination } from "../library/qemu-destination.ts";
import { qemuSource } from "../library/qemu-source.ts";
import { takeIn } from "../library/reception.ts";
import { CACHE_SHARE_MAX } from "../library/run.ts";
import { type Address, formatAddress } from "../link/address.ts";
import type { FairLink } from "../link/fair-link.ts";
import { HISTORY } from "../memory/policy/history.ts";
import { monitorName } from "../state/keep.ts";
import type { VmNames, WaitingVm } from "./incoming.ts";
import type { OutgoingOrder } from "./outgoing.ts";
import type { Runs } from "./runs.ts";
import type { Settings } from "./settings.ts";

/** What it takes to move VMs of QEMU. */
export interface QemuMoves {
  readonly settings: Settings;
  readonly runs: Runs;
  /** Undefined: each sends as it can. */
  readonly link: FairLink | undefined;
}

/** What is wanted of one migration; what is not said is as the settings have it. */
export interface QemuWish {
  readonly qmp: QmpAddress;
  readonly to: Address;
  readonly tlsHostname?: string | undefined;
  readonly weight?: number | undefined;
  readonly linkBytesPerSecondMax?: number | undefined;
  readonly downtimeMsMax?: number | undefined;
  readonly timeMsMax?: number | undefined;
  readonly wireBytesMax?: number | undefined;
  readonly onStall?: StallPolicy | undefined;
}

interface Look {
  readonly names: VmNames;
  /** QEMU's run state. */
  readonly status: string;
}

/** Asks QEMU what its VM is called, and lets go of it. @throws DeltaveeError QMP_UNAVAILABLE */
async function look(qmp: QmpAddress): Promise<Look> {
  const client = await QmpClient.connect(qmp);
  try {
    const [{ name }, { UUID: uuid }, { status }] = await Promise.all([
      client.execute("query-name"),
      client.execute("query-uuid"),
      client.execute("query-status"),
    ]);
    // All zeros: it was given none.
    const names = { ...(name === undefined ? {} : { name }), ...(/^[0-]*$/.test(uuid) ? {} : { uuid }) };
    return { names, status };
  } finally {
    client.close();
  }
}

/** An order to move this VM away. Looks at it, and changes nothing. @throws DeltaveeError when it has no guest to give */
export async function orderFor(wish: QemuWish, moves: QemuMoves): Promise<OutgoingOrder> {
  const { names, status } = await look(wish.qmp);
  if (status === "inmigrate" || status === "postmigrate") {
    throw new DeltaveeError("HYPERVISOR_FAILED", `QEMU has no guest to give away (it is in state ${status})`);
  }
  const { settings, runs, link } = moves;
  const { outgoing } = settings;
  const vm = names.name ?? names.uuid ?? nameOfMonitor(wish.qmp);
  const weight = wish.weight ?? outgoing.weight;
  return {
    vm,
    key: monitorName(wish.qmp),
    peer: formatAddress(wish.to),
    weight,
    move: ({ id, signal, listener }) =>
      runMigration(
        {
          ...(wish.to.kind === "deltavee" ? securityOf(settings) : {}),
          guest: qemuSource(wish.qmp),
          to: wish.to,
          tlsHostname: wish.tlsHostname,
          linkBytesPerSecondMax: wish.linkBytesPerSecondMax,
          ...(link === undefined ? {} : { shared: (channel) => link.share(channel, weight) }),
          downtimeMsMax: wish.downtimeMsMax ?? outgoing.maxDowntime,
          timeMsMax: wish.timeMsMax ?? outgoing.maxTime,
          wireBytesMax: wish.wireBytesMax ?? outgoing.maxBytes,
          onStall: wish.onStall ?? outgoing.onStall,
          cacheBytesMax: outgoing.cacheSize,
          cacheShareMax: CACHE_SHARE_MAX / outgoing.concurrent,
          cachePolicy: HISTORY,
          stateDir: settings.stateDir,
          hasForecast: outgoing.forecast,
          signal,
        },
        runs.opener({ id, vm }, listener),
      ),
  };
}

/** A QEMU that waits for its VM. Looks at it, and changes nothing. @throws DeltaveeError when it does not */
export async function waitingAt(
  qmp: QmpAddress,
  name: string | undefined,
  moves: QemuMoves,
): Promise<WaitingVm> {
  const { names, status } = await look(qmp);
  if (status !== "inmigrate") {
    throw new DeltaveeError(
      "HYPERVISOR_FAILED",
      `QEMU does not wait for a migration (it is in state ${status}): start it with -incoming defer`,
    );
  }
  return waitingVm(qmp, { ...names, ...(name === undefined ? {} : { name }) }, moves);
}

/** The VM whose monitor is where the settings say that those of this name are; undefined where there is none. */
export function findWaiting(names: VmNames, moves: QemuMoves): WaitingVm | undefined {
  const { qmp: pattern } = moves.settings.incoming;
  if (pattern === undefined) return undefined;
  const path = pathFor(pattern, names);
  if (path === undefined || !existsSync(path)) return undefined;
  return waitingVm({ kind: "unix", path }, names, moves);
}

/** A source says what its VM is called: nothing that would lead elsewhere is put into a path. */
export function pathFor(pattern: string, { name, uuid }: VmNames): string | undefined {
  const values: Readonly<Record<string, string | undefined>> = { name, uuid };
  let isWhole = true;
  const path = pattern.replace(/\{(name|uuid)\}/g, (_all, key: string) => {
    const value = values[key];
    if (value === undefined || !/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/.test(value)) {
      isWhole = false;
      return "";
    }
    return value;
  });
  return isWhole ? path : undefined;
}

function waitingVm(qmp: QmpAddress, names: VmNames, { settings, runs }: QemuMoves): WaitingVm {
  const { incoming, stateDir } = settings;
  const vm = names.name ?? names.uuid ?? nameOfMonitor(qmp);
  return {
    key: monitorName(qmp),
    names,
    takeIn: (sources, { id, signal, listener }) =>
      takeIn(
        {
          guest: qemuDestination(qmp),
          paused: incoming.paused,
          baselineBytesMax: incoming.baselineSize,
          reconnectTimeoutMs: incoming.reconnectTimeout,
          stateDir,
          signal,
        },
        async () => sources,
        runs.opener({ id, vm }, listener),
      ),
  };
}

export function securityOf({ tls }: Settings): SecurityOptions {
  return {
    tlsDir: tls.dir,
    keysDir: tls.keysDir,
    ...(tls.insecurePlaintext ? { insecurePlaintext: true } : {}),
  };
}

function nameOfMonitor(qmp: QmpAddress): string {
  return qmp.kind === "unix"
    ? basename(qmp.path).replace(/\.(qmp|sock|socket|monitor)$/, "")
    : formatAddress(qmp);
}
