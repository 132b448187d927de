// A v86 VM as the pre-copy loop needs it (engine/precopy/precopy.ts): its RAM, its dirty pages, its device state.

import type { StoppedRam } from "../../engine/ports.ts";
import type { PrecopyGuest } from "../../engine/precopy/precopy.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { BLOCK, v86StoppedRam } from "./stopped-ram.ts";
import type { VmHost } from "./vm-host.ts";

/** Name of the machine and of its device section in the stream. */
const MACHINE = "v86";
/** One call's worth: small, so that the guest is not kept waiting and the engine's window is looked at often. */
const BATCH_PAGES = 64;

export class V86Guest implements PrecopyGuest {
  readonly machine = MACHINE;
  readonly pageBytes = PAGE_BYTES;
  readonly batchPages = BATCH_PAGES;
  readonly description: string;
  readonly block: StreamBlock;
  readonly #host: VmHost;
  /** Where `take` puts them. */
  readonly #pages = new Uint8Array(BATCH_PAGES * PAGE_BYTES);
  #isRunning: boolean;

  constructor(host: VmHost, options: { isRunning: boolean; version: string }) {
    this.#host = host;
    this.#isRunning = options.isRunning;
    this.description = `v86 ${options.version}`;
    this.block = { idstr: BLOCK, lengthBytes: host.memoryBytes };
  }

  /** Whoever else stops the VM meanwhile would not be noticed: a migration has it to itself. */
  get isRunning(): boolean | undefined {
    return this.#host.hasEnded ? undefined : this.#isRunning;
  }

  forgetTaken(): Promise<void> {
    return this.#host.resetScan();
  }

  scan(): Promise<Uint32Array> {
    return this.#host.scan();
  }

  async take(pageIndices: Uint32Array): Promise<Uint8Array> {
    await this.#host.takePages(pageIndices, this.#pages);
    return this.#pages;
  }

  /** A guest that was paused before the migration stays so. */
  async stop(): Promise<void> {
    if (!this.#isRunning) return;
    await this.#host.stop();
    this.#isRunning = false;
  }

  async resume(): Promise<void> {
    await this.#host.run();
    this.#isRunning = true;
  }

  deviceState(): Promise<Uint8Array> {
    return this.#host.saveDeviceState();
  }

  async openRam(): Promise<StoppedRam> {
    return v86StoppedRam(this.#host);
  }
}
