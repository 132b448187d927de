// CPU time and memory that a migration costs, process by process. Of a QEMU the thread that runs the guest is left out:
// what remains is its migration thread, its compression threads and its main loop (which loads what arrives).

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cpuSeconds } from "./host-process.ts";

/** Started with this, QEMU names its threads, and the guest's can be told from the others. */
export const QEMU_ARGUMENTS = ["-name", "deltavee,debug-threads=on"] as const;
const VCPU_THREAD = /^CPU \d+\//;
const LOOK_EVERY_MS = 100;

/**
 * CPU seconds of a QEMU without its vCPU threads. What threads have used that ended meanwhile (those of multifd) is
 * in the process's own figure. @throws Error once it has ended
 */
export function qemuCpuSeconds(pid: number): number {
  return cpuSeconds(pid) - guestCpuSeconds(pid);
}

/** CPU seconds of a QEMU's vCPU threads. @throws Error once it has ended */
export function guestCpuSeconds(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const vcpus = readdirSync(tasks).filter((task) =>
    VCPU_THREAD.test(readFileSync(join(tasks, task, "comm"), "utf8")),
  );
  return vcpus.reduce((sum, task) => sum + cpuSeconds(pid, Number(task)), 0);
}

/** A figure that only grows. A process may end meanwhile, and its figures with it: then the last look counts. */
export class Watch {
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

  /** By how much it has grown since the watch began. */
  get growth(): number {
    this.#look();
    return this.#last - this.#start;
  }

  get last(): number {
    this.#look();
    return this.#last;
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    try {
      this.#last = this.#read();
    } catch {
      clearInterval(this.#timer);
    }
  }
}

/** The most memory that a process has held at once (VmHWM). @throws Error once it has ended */
export function residentBytesMax(pid: number): number {
  const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
  // A process that has just ended has no memory any more.
  if (kilobytes === undefined) throw new Error(`Process ${pid} has ended`);
  return Number(kilobytes) * 1024;
}
