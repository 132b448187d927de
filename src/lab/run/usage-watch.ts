// What all processes of a migration use, on both sides, while it goes on.

import { cpuSeconds } from "../host-process.ts";
import type { Side } from "../method/method.ts";
import { qemuCpuSeconds, residentBytesMax, Watch } from "../usage.ts";

export interface Usage {
  readonly side: Side;
  readonly process: "qemu" | "deltavee";
  readonly cpuMs: number;
  readonly residentBytesMax: number;
}

interface Watched extends Pick<Usage, "side" | "process"> {
  readonly cpuSeconds: Watch;
  readonly residentBytes: Watch;
}

/** All processes of a migration, on both sides. CPU time counts from when each was added. */
export class UsageWatch {
  readonly #watched: Watched[] = [];
  #hasEnded = false;

  qemu(side: Side, pid: number): void {
    this.#add(side, "qemu", pid, qemuCpuSeconds);
  }

  deltavee(side: Side, pid: number): void {
    this.#add(side, "deltavee", pid, cpuSeconds);
  }

  /** By now; of a process that has ended, until it did. */
  get usages(): Usage[] {
    return this.#watched.map(({ side, process, cpuSeconds, residentBytes }) => ({
      ...{ side, process },
      cpuMs: cpuSeconds.growth * 1000,
      residentBytesMax: residentBytes.last,
    }));
  }

  /** Nothing is watched any more, nor what is added later. */
  end(): void {
    this.#hasEnded = true;
    for (const { cpuSeconds, residentBytes } of this.#watched) {
      cpuSeconds.end();
      residentBytes.end();
    }
  }

  #add(side: Side, process: Usage["process"], pid: number, cpu: (pid: number) => number): void {
    if (this.#hasEnded) return;
    this.#watched.push({
      ...{ side, process },
      cpuSeconds: new Watch(() => cpu(pid)),
      residentBytes: new Watch(() => residentBytesMax(pid)),
    });
  }
}
