// Starts and ends the guard process of a direct migration (guard-process.ts), and tells it when the source must not
// resume any more. What happens when this process dies is the guard's to do.

import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { toError } from "../../base/errors.ts";
import { workerLocation } from "../../base/worker-location.ts";

const COMMITTED = Buffer.from("C", "latin1");

export class Guard {
  readonly #process: ChildProcess;
  readonly #notice: (message: string) => void;
  /** It is not needed any more, or was never there. */
  #over = false;
  #committed = false;

  /**
   * Starts it beside us with a duplicate of `connection`, from which nothing may have been read yet. It holds that
   * from here on, although it takes a moment to run. To be called before much memory is in use: a process is made by
   * copying the page tables of this one.
   */
  static start(connection: Socket, notice: (message: string) => void): Guard {
    return new Guard(connection, notice);
  }

  private constructor(connection: Socket, notice: (message: string) => void) {
    this.#notice = notice;
    this.#process = spawn(process.execPath, [workerLocation("hypervisor/qemu/guard-process").pathname], {
      // A session of its own: a signal to our process group, or a terminal's Ctrl-C, does not take it along.
      detached: true,
      stdio: ["pipe", "ignore", "ignore", connection],
      cwd: "/",
      env: {},
    });
    const lost = (how: string) => {
      if (this.#over) return;
      this.#over = true;
      this.#notice(
        `The guard ${how}: if this process is killed in the middle of the switchover, the guest may run on both sides`,
      );
    };
    this.#process.on("error", (error) => lost(`could not be started (${error.message})`));
    this.#process.on("exit", (code, signal) => lost(`has ended (${signal ?? `exit code ${code}`})`));
    this.#process.stdin!.on("error", (error) => lost(`does not listen (${toError(error).message})`));
    // Nothing waits for it.
    this.#process.unref();
    (this.#process.stdin as Socket).unref();
  }

  /** From here on QEMU must not resume the guest by itself. The guard has been told when this returns. */
  commit(): void {
    if (this.#over || this.#committed) return;
    this.#committed = true;
    const pipe = this.#process.stdin!;
    pipe.write(COMMITTED);
    // One byte into an empty pipe is written at once; one that is not would not outlive us.
    if (pipe.writableLength > 0) this.#notice("The guard could not be told that the guest is handed over");
  }

  /**
   * We are done with the connection. Without `commit` QEMU sees it close; after it, it does so only when `settled`:
   * the migration is over at QEMU. Otherwise the guard sees to it that the guest is not resumed.
   */
  end(settled: boolean): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#committed && !settled) this.#process.stdin!.destroy();
    else this.#process.kill("SIGKILL");
  }
}
