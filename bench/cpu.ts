// CPU time that a migration costs, process by process. Of a QEMU the thread that runs the guest is left out:
// what remains is its migration thread, its compression threads and its main loop (which loads what arrives).

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cpuSeconds } from "../test/support/processes.ts";

/** Started with this, QEMU names its threads, and the guest's can be told from the others. */
export const QEMU_ARGUMENTS = ["-name", "bench,debug-threads=on"] as const;
const VCPU_THREAD = /^CPU \d+\//;
const LOOK_EVERY_MS = 100;

/** CPU seconds of a QEMU without its vCPU threads. @throws Error once it has ended */
export function qemuCpuSeconds(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const vcpus = readdirSync(tasks).filter((task) =>
    VCPU_THREAD.test(readFileSync(join(tasks, task, "comm"), "utf8")),
  );
  return cpuSeconds(pid) - vcpus.reduce((sum, task) => sum + cpuSeconds(pid, Number(task)), 0);
}

/** CPU time used from now on. A process may end meanwhile, and its figures with it: then the last look counts. */
export class CpuWatch {
  readonly #read: () => number;
  readonly #timer: NodeJS.Timeout;
  readonly #start: number;
  #last: number;

  /** `read` throws when the process has ended. */
  constructor(read: () => number) {
    this.#read = read;
    this.#start = this.#last = read();
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** Ends the watch. */
  seconds(): number {
    this.#look();
    clearInterval(this.#timer);
    return this.#last - this.#start;
  }

  #look(): void {
    try {
      this.#last = this.#read();
    } catch {
      clearInterval(this.#timer);
    }
  }
}
