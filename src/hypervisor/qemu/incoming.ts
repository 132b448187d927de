// A QEMU that takes a VM in: started with `-incoming defer`, set up over QMP, fed through a unix socket. It
// is told before anything arrives not to start the guest by itself, so that nothing runs before COMMIT.

import { DeltaveeError, toError } from "../../base/errors.ts";
import type { Channel, IncomingVm } from "../../engine/ports.ts";
import { connect } from "../../link/address.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { MigrationSocket } from "./migration-socket.ts";
import { type QmpAddress, QmpClient } from "./qmp.ts";

const CONNECT_TIMEOUT_MS = 5000;
/** A migration may take days; nobody waits for its end with less patience. */
const LOADED_TIMEOUT_MS = 2 ** 31 - 1;
const PAUSED_TIMEOUT_MS = 10_000;

export class QemuIncoming implements IncomingVm {
  readonly description: string;
  readonly version: string;
  readonly #qmp: QmpClient;
  readonly #notice: (message: string) => void;
  #socket: MigrationSocket | undefined;
  #loaded: Promise<void> | undefined;

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

  async begin(): Promise<Channel> {
    const qmp = this.#qmp;
    // While it waits for a migration, `stop` means: do not start the guest once it is loaded.
    await qmp.execute("stop");
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "events", state: true },
        { capability: "return-path", state: true },
        { capability: "multifd", state: false },
      ],
    });
    const completed = qmp.waitForEvent(
      "MIGRATION",
      ({ data }) => data.status === "completed" || data.status === "failed",
      LOADED_TIMEOUT_MS,
    );
    this.#loaded = completed.then(async ({ data }) => {
      if (data.status === "failed")
        throw new DeltaveeError("HYPERVISOR_FAILED", "QEMU could not load the migration");
      await this.#paused();
    });
    // It is for the caller of loaded() to hear of a failure.
    this.#loaded.catch(() => {});
    this.#socket = await MigrationSocket.create(qmp.address);
    await qmp.execute("migrate-incoming", { uri: `unix:${this.#socket.path}` });
    const socket = await connect({ kind: "unix", path: this.#socket.path }, CONNECT_TIMEOUT_MS);
    return new SocketChannel(socket);
  }

  async loaded(): Promise<void> {
    if (this.#loaded === undefined) throw new DeltaveeError("HYPERVISOR_FAILED", "No migration has begun");
    await this.#loaded;
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
    const failure = await this.#socket?.remove();
    if (failure !== undefined)
      this.#notice(`Could not remove a temporary folder: ${toError(failure).message}`);
    this.#qmp.close();
  }

  /** "completed" is reported a moment before the run state leaves `inmigrate`. */
  async #paused(): Promise<void> {
    const deadlineMs = performance.now() + PAUSED_TIMEOUT_MS;
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
