// A QEMU that takes a VM in: started with `-incoming defer`, set up over QMP, fed through a unix socket. It
// is told before anything arrives not to start the guest by itself, so that nothing runs before COMMIT.

import { DeltaveeError, toError } from "../../base/errors.ts";
import type { Channel, IncomingVm, StoppedRam, UntouchedRam } from "../../engine/ports.ts";
import { connect } from "../../link/address.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { MigrationSocket } from "./migration-socket.ts";
import { type QmpAddress, QmpClient } from "./qmp.ts";
import type { MigrationCapability } from "./qmp-types.ts";
import { openStoppedRam } from "./stopped-ram.ts";
import { untouchedRam } from "./untouched-ram.ts";

const CONNECT_TIMEOUT_MS = 5000;
/** A migration may take days; nobody waits for its end with less patience. */
const LOADED_TIMEOUT_MS = 2 ** 31 - 1;
const PAUSED_TIMEOUT_MS = 10_000;

type Capabilities = Partial<Record<MigrationCapability, boolean>>;

/** What is on or off while it takes a VM in. */
const CAPABILITIES: Capabilities = { events: true, "return-path": true, multifd: false };
const POSTCOPY_CAPABILITIES: Capabilities = { "postcopy-ram": true };

export class QemuIncoming implements IncomingVm {
  readonly description: string;
  readonly version: string;
  readonly #qmp: QmpClient;
  readonly #notice: (message: string) => void;
  #socket: MigrationSocket | undefined;
  #begun: Promise<Channel> | undefined;
  #channel: Channel | undefined;
  #loaded: Promise<void> | undefined;
  #ready: Promise<void> | undefined;
  /**
   * Capabilities that were changed, as they were before. They are put back when all is loaded: left on, `postcopy-ram` would
   * be asked of this VM's next destination, and with `return-path` a migration to a file was not seen to end.
   */
  readonly #before: Capabilities = {};
  #isPostcopy = false;
  #isDone = false;

  /** @throws DeltaveeError QMP_UNAVAILABLE, or HYPERVISOR_FAILED when it does not wait for a migration */
  static async open(address: QmpAddress, notice: (message: string) => void): Promise<QemuIncoming> {
    const qmp = await QmpClient.connect(address);
    try {
      const { status } = await qmp.execute("query-status");
      if (status !== "inmigrate") {
        throw new DeltaveeError(
          "HYPERVISOR_FAILED",
          `QEMU does not wait for a migration (it is in state ${status}): start it with -incoming defer`,
        );
      }
      return new QemuIncoming(qmp, notice);
    } catch (thrown) {
      qmp.close();
      throw thrown;
    }
  }

  private constructor(qmp: QmpClient, notice: (message: string) => void) {
    this.#qmp = qmp;
    this.#notice = notice;
    const { major, minor, micro } = qmp.version;
    this.version = `${major}.${minor}.${micro}`;
    this.description = `QEMU ${this.version}`;
  }

  /**
   * Again after a source that was gone before it was welcomed: what was begun for that one is the next one's, since QEMU
   * begins only once.
   */
  async begin(mayPostcopy: boolean): Promise<Channel> {
    // Its host may not be able to do it, which is for the caller to hear.
    if (mayPostcopy) await this.#change(POSTCOPY_CAPABILITIES);
    this.#begun ??= this.#begin().catch((thrown: unknown) => {
      this.#begun = undefined;
      throw thrown;
    });
    return this.#begun;
  }

  async #begin(): Promise<Channel> {
    const qmp = this.#qmp;
    // While it waits for a migration, `stop` means: do not start the guest once it is loaded.
    await qmp.execute("stop");
    await this.#change(CAPABILITIES);
    const completed = qmp.waitForEvent(
      "MIGRATION",
      ({ data }) => data.status === "completed" || data.status === "failed",
      LOADED_TIMEOUT_MS,
    );
    const switched = qmp.waitForEvent(
      "MIGRATION",
      ({ data }) => data.status === "postcopy-active",
      LOADED_TIMEOUT_MS,
    );
    // The device state follows, for which a page may have to be fetched.
    this.#ready = switched.then(async () => {
      this.#isPostcopy = true;
      await this.#paused(LOADED_TIMEOUT_MS);
    });
    // Of a migration that ends without it nobody waits for it.
    this.#ready.catch(() => {});
    this.#loaded = completed.then(async ({ data }) => {
      if (data.status === "failed")
        throw new DeltaveeError("HYPERVISOR_FAILED", "QEMU could not load the migration");
      await (this.#isPostcopy ? this.#ready : this.#paused(PAUSED_TIMEOUT_MS));
      this.#isDone = true;
    });
    // It is for the caller of loaded() to hear of a failure.
    this.#loaded.catch(() => {});
    this.#socket = await MigrationSocket.create(qmp.address);
    await qmp.execute("migrate-incoming", { uri: `unix:${this.#socket.path}` });
    const socket = await connect({ kind: "unix", path: this.#socket.path }, CONNECT_TIMEOUT_MS);
    this.#channel = new SocketChannel(socket);
    return this.#channel;
  }

  async loaded(): Promise<void> {
    if (this.#loaded === undefined) throw new DeltaveeError("HYPERVISOR_FAILED", "No migration has begun");
    await this.#loaded;
  }

  async ready(): Promise<void> {
    if (this.#ready === undefined) throw new DeltaveeError("HYPERVISOR_FAILED", "No migration has begun");
    await this.#ready;
  }

  openRam(): Promise<StoppedRam> {
    return openStoppedRam(this.#qmp);
  }

  untouchedRam(): Promise<UntouchedRam[]> {
    return untouchedRam(this.#qmp);
  }

  async resume(): Promise<void> {
    await this.#qmp.execute("cont");
  }

  /** QEMU ends: what it holds is a copy of a guest that runs elsewhere. */
  async discard(): Promise<void> {
    try {
      await this.#qmp.execute("quit");
    } catch (thrown) {
      // It has ended by itself when a load fails: that is what was wanted.
      if (!(thrown instanceof DeltaveeError) || thrown.code === "QMP_COMMAND_REFUSED") throw thrown;
    }
  }

  async close(): Promise<void> {
    // What it has is all that it gets from us: a part of a guest waits for its recovery, which QEMU begins with this.
    this.#channel?.destroy();
    const failure = await this.#socket?.remove();
    if (failure !== undefined)
      this.#notice(`Could not remove a temporary folder: ${toError(failure).message}`);
    try {
      // In the middle of a post-copy QEMU refuses it, and would need it to go on.
      if (this.#isDone) await this.#set(this.#before);
    } catch (thrown) {
      const names = Object.keys(this.#before).join(", ");
      this.#notice(`QEMU's capabilities ${names} were not put back: ${toError(thrown).message}`);
    }
    this.#qmp.close();
  }

  /** @throws DeltaveeError when QEMU, or its host, cannot do it */
  async #change(wanted: Capabilities): Promise<void> {
    const found = await this.#qmp.execute("query-migrate-capabilities");
    const changed = found.filter(
      ({ capability, state }) => (wanted[capability as MigrationCapability] ?? state) !== state,
    );
    await this.#set(wanted);
    for (const { capability, state } of changed) this.#before[capability as MigrationCapability] ??= state;
  }

  async #set(wanted: Capabilities): Promise<void> {
    const capabilities = Object.entries(wanted).map(([name, state]) => {
      return { capability: name as MigrationCapability, state };
    });
    if (capabilities.length > 0) await this.#qmp.execute("migrate-set-capabilities", { capabilities });
  }

  /** Both are reported a moment before the run state leaves `inmigrate`. */
  async #paused(timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const { status, running } = await this.#qmp.execute("query-status");
      if (running) throw new DeltaveeError("HYPERVISOR_FAILED", "QEMU has started the guest by itself");
      if (status !== "inmigrate") return;
      if (performance.now() > deadlineMs) {
        throw new DeltaveeError("HYPERVISOR_FAILED", `QEMU stays in state ${status} after loading`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}
