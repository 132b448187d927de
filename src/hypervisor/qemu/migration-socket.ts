// A unix socket in a folder of its own, through which a QEMU on this machine hands over or takes in a
// migration. QEMU may run as another user than Deltavee: the folder is given to whoever owns QEMU's monitor.

import { chown, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toError } from "../../base/errors.ts";
import type { QmpAddress } from "./qmp.ts";

export class MigrationSocket {
  readonly folder: string;
  readonly path: string;
  readonly #owner: { uid: number; gid: number } | undefined;

  /** Only the owner of the folder can reach the socket in it: mkdtemp makes it 0700. */
  static async create(monitor: QmpAddress): Promise<MigrationSocket> {
    const folder = await mkdtemp(join(tmpdir(), "deltavee-"));
    let owner: { uid: number; gid: number } | undefined;
    if (monitor.kind === "unix" && process.getuid?.() === 0) {
      const { uid, gid } = await stat(monitor.path);
      if (uid !== 0) {
        owner = { uid, gid };
        await chown(folder, uid, gid);
      }
    }
    return new MigrationSocket(folder, owner);
  }

  private constructor(folder: string, owner: { uid: number; gid: number } | undefined) {
    this.folder = folder;
    this.path = join(folder, "migration.sock");
    this.#owner = owner;
  }

  /** Lets QEMU's user connect to a socket that we have made here. */
  async giveToQemu(): Promise<void> {
    if (this.#owner !== undefined) await chown(this.path, this.#owner.uid, this.#owner.gid);
  }

  /** Removes the folder. Resolves to what went wrong, if anything: it is no reason to fail a migration. */
  async remove(): Promise<Error | undefined> {
    try {
      await rm(this.folder, { recursive: true, force: true });
      return undefined;
    } catch (thrown) {
      return toError(thrown);
    }
  }
}
