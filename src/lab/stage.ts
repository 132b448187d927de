// The scene of one run: test hosts, the guest running at the source from its warm state, a QEMU waiting for it at the
// destination, and clients. Who moves the guest, and what is measured, are not its business.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { toError } from "../base/errors.ts";
import { labCacheFolder } from "./cache.ts";
import { type ClientProcess, clientProgramPath, startClientProcess } from "./client-process.ts";
import { usableAccelerator } from "./guest/accelerator.ts";
import { loadState, makeOverlay, probeGuest, saveState, startGuestVm } from "./guest/guest-vm.ts";
import type { QemuProcess } from "./guest/qemu-process.ts";
import { guestShell, SHELL_PORT, waitForShell } from "./guest/shell.ts";
import { type WarmState, type WarmStateOf, warmState } from "./guest/warm-state.ts";
import { GUEST_ADDRESS, openHosts, type TestHosts } from "./hosts/hosts.ts";
import { requireNamespaces } from "./hosts/namespaces.ts";
import { buildImage, type Progress } from "./image/image.ts";
import type { GuestShape, LabLink, Scenario, ScenarioParameters, Stage } from "./model.ts";
import { ownedTempFolder } from "./ownership.ts";
import type { QemuBinary } from "./qemu-binaries.ts";

/** An emulated guest on a busy host boots in some seconds. */
const BOOT_TIMEOUT_MS = 120_000;
const LOADED_TIMEOUT_MS = 60_000;
const READY_TIMEOUT_MS = 60_000;
/** lab/guest/heartbeat.c */
const HEARTBEAT_PORT = 7001;
/** While a guest is warmed up nothing is moved. */
const ANY_LINK: LabLink = { bytesPerSecond: 125e6, roundTripMs: 0, lossShare: 0 };

export interface StageOptions {
  readonly scenario: Scenario;
  /** All of the scenario's. */
  readonly parameters: ScenarioParameters;
  readonly shape: GuestShape;
  readonly link: LabLink;
  /** On both sides. */
  readonly binary: QemuBinary;
  readonly progress?: Progress;
  /** Ends everything at once, also while a warm state is made. */
  readonly signal?: AbortSignal;
}

export interface OpenStage extends Stage {
  readonly hosts: TestHosts;
  readonly source: QemuProcess;
  /** Started with `-incoming defer`. */
  readonly destination: QemuProcess;
  /** A client as any other, which is ready: metrics heartbeatGapMs, slowdownShare and others (client/beat-log.ts). */
  readonly heartbeat: ClientProcess;
  /** Ends everything. Safe in every state, whatever has become of the guest. Idempotent. */
  close(): Promise<void>;
}

/**
 * Makes image and warm state where they are not there yet, which takes minutes.
 * @throws UsageError, before anything is done, where the lab cannot run (not root, packages missing)
 */
export async function openStage(options: StageOptions): Promise<OpenStage> {
  const { scenario, parameters, shape, link, binary, signal, progress = () => {} } = options;
  requireNamespaces();
  const image = await buildImage(progress, signal);
  const accelerator = await usableAccelerator(binary, probeGuest(image));
  const of: WarmStateOf = { scenario, parameters, shape, image, binary, accelerator };
  const warm = await warmState(of, (to) => makeWarmState(of, to, progress, signal));
  return withScene(shape, link, signal, async (scene) => {
    const disk = join(scene.folder, "disk.qcow2");
    await makeOverlay(disk, warm.disk, "qcow2");
    const vm = { binary, accelerator, image, shape, disk, incoming: true };
    const source = await scene.startVm({ ...vm, netns: scene.hosts.sourceNetns });
    await loadState(source, warm.state);
    await waitForShell(scene.stage.guest, LOADED_TIMEOUT_MS, signal);
    const destination = await scene.startVm({ ...vm, netns: scene.hosts.destinationNetns });
    const heartbeat = await scene.startClient("heartbeat", { port: HEARTBEAT_PORT });
    await heartbeat.ready(READY_TIMEOUT_MS);
    return { ...scene.stage, hosts: scene.hosts, source, destination, heartbeat, close: scene.close };
  });
}

/** Boots the guest, has the scenario warm it up, and keeps what it is then. */
async function makeWarmState(
  of: WarmStateOf,
  to: WarmState,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { scenario, parameters, shape, image, binary, accelerator } = of;
  await makeOverlay(to.disk, image.disk, "raw");
  progress(`booting the guest of ${scenario.name} for its warm state`);
  const close = await withScene(shape, ANY_LINK, signal, async (scene) => {
    const vm = { binary, accelerator, image, shape, disk: to.disk, netns: scene.hosts.sourceNetns };
    const source = await scene.startVm(vm);
    await waitForShell(scene.stage.guest, BOOT_TIMEOUT_MS, signal);
    progress(`warming it up`);
    await scenario.warmUp(scene.stage, parameters);
    await scene.stage.guest.run("sync");
    await saveState(source, to.state);
    return scene.close;
  });
  await close();
}

interface Scene {
  readonly hosts: TestHosts;
  readonly folder: string;
  readonly stage: Stage;
  startVm(options: Parameters<typeof startGuestVm>[0]): Promise<QemuProcess>;
  startClient(program: string, options: Readonly<Record<string, unknown>>): Promise<ClientProcess>;
  close(): Promise<void>;
}

/** Test hosts and the guest's shell; what `use` starts on them is ended with them, at once if it throws. */
async function withScene<T>(
  shape: GuestShape,
  link: LabLink,
  signal: AbortSignal | undefined,
  use: (scene: Scene) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const hosts = await openHosts(link);
  const folder = ownedTempFolder();
  const started: { stop(): Promise<unknown> }[] = [];
  const closeAll = async (): Promise<void> => {
    signal?.removeEventListener("abort", closeAtOnce);
    const stops = await Promise.allSettled(started.splice(0).map((each) => each.stop()));
    try {
      await hosts.remove();
    } finally {
      folder.remove();
    }
    for (const stop of stops) if (stop.status === "rejected") throw toError(stop.reason);
  };
  // Whoever closes last waits until all is gone, too: the next run needs the same names.
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= closeAll();
    return closing;
  };
  // What waits for any of it fails then, and says so; why it was closed the signal says.
  const closeAtOnce = () => void close().catch(() => {});
  signal?.addEventListener("abort", closeAtOnce, { once: true });
  const keep = async <S extends { stop(): Promise<unknown> }>(starting: Promise<S>): Promise<S> => {
    const each = await starting;
    started.push(each);
    if (signal?.aborted) {
      await each.stop();
      signal.throwIfAborted();
    }
    return each;
  };
  try {
    const startClient = (program: string, options: Readonly<Record<string, unknown>>) =>
      keep(startClientProcess(clientProgramPath(program), options, hosts.clientNetns));
    const path = join(folder.path, "shell");
    const gateway = await startClient("gateway", { path, host: GUEST_ADDRESS, port: SHELL_PORT });
    await gateway.ready(READY_TIMEOUT_MS);
    const cacheFolder = join(labCacheFolder(), "scenario");
    mkdirSync(cacheFolder, { recursive: true });
    const stage = { guest: guestShell(path), guestAddress: GUEST_ADDRESS, shape, cacheFolder, startClient };
    const startVm: Scene["startVm"] = (vm) => keep(startGuestVm(vm));
    return await use({ hosts, folder: folder.path, stage, startVm, startClient, close });
  } catch (thrown) {
    await close();
    signal?.throwIfAborted();
    throw thrown;
  }
}
