// An embedded VM for tests: starts it (or a destination that waits), listens to its guest, and watches that of
// all VMs that are one and the same guest never more than one may run.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PAGE_BYTES } from "../../src/hypervisor/v86/dirty-scan.ts";
import { PAGES_PER_CALL_MAX } from "../../src/hypervisor/v86/protocol.ts";
import { VmHost } from "../../src/hypervisor/v86/vm-host.ts";
import { PACKAGE_ROOT } from "./package-root.ts";
import { parseVerification, type Verification } from "./serial.ts";

const GUEST = readFileSync(join(PACKAGE_ROOT, "guest/guest.elf"));
/** A guest whose heart beats this often and this much after it was asked to verify will answer. */
const WAIT_MS_MAX = 180_000;

interface Line {
  text: string;
  /** When the guest ended it, on a clock that all VMs of this host share. */
  hostMs: number;
}

/** All VMs of one guest: the source and wherever it goes. */
export class OneGuest {
  readonly vms: V86Vm[] = [];
  /** VMs that may be executing: from before their start until after their stop. */
  readonly running = new Set<string>();
  readonly violations: string[] = [];

  started(name: string): void {
    if (this.running.size > 0) this.violations.push(`${name} started while ${[...this.running]} ran`);
    this.running.add(name);
  }

  /** Counters of all heartbeats in the order of the VMs, which is that of the moves. */
  get heartbeats(): number[] {
    return this.vms.flatMap((vm) => vm.heartbeats.map(({ counter }) => counter));
  }
}

export class V86Vm {
  readonly name: string;
  readonly host: VmHost;
  readonly lines: Line[];
  readonly guest: OneGuest;

  /** With a command line for the guest it is a source; without, a destination that waits. */
  static async open(
    guest: OneGuest,
    options: { memoryMiB: number; commandLine?: string; onFailure?: (error: Error) => void },
  ): Promise<V86Vm> {
    const { memoryMiB, commandLine, onFailure } = options;
    const lines: Line[] = [];
    const host = await VmHost.open({
      memoryBytes: memoryMiB * 1024 * 1024,
      ...(commandLine === undefined ? {} : { kernel: { elf: GUEST, commandLine } }),
      onSerialLine: (text, hostMs) => lines.push({ text, hostMs }),
      ...(onFailure === undefined ? {} : { onFailure }),
    });
    return new V86Vm(guest, host, lines);
  }

  private constructor(guest: OneGuest, host: VmHost, lines: Line[]) {
    this.name = `VM ${guest.vms.length}`;
    this.host = host;
    this.lines = lines;
    this.guest = guest;
    guest.vms.push(this);
    const [run, stop] = [host.run.bind(host), host.stop.bind(host)];
    host.run = async () => {
      guest.started(this.name);
      try {
        await run();
      } catch (thrown) {
        // A dead VM cannot be started.
        guest.running.delete(this.name);
        throw thrown;
      }
    };
    host.stop = async () => {
      await stop();
      guest.running.delete(this.name);
    };
  }

  get heartbeats(): { counter: number; hostMs: number }[] {
    return this.lines
      .filter(({ text }) => text.startsWith("HB "))
      .map(({ text, hostMs }) => ({ counter: Number(text.split(" ")[1]), hostMs }));
  }

  /** Boots the guest and lets it fill its memory. */
  async start(): Promise<void> {
    await this.host.run();
    await this.waitForHeartbeats(3);
  }

  waitForHeartbeats(count: number): Promise<void> {
    const enough = this.heartbeats.length + count;
    return until(`${count} heartbeats of ${this.name}`, () => this.heartbeats.length >= enough);
  }

  /** The guest's own look at its memory. */
  async verify(): Promise<Verification> {
    const from = this.lines.length;
    await this.host.sendSerial("v");
    let found: Verification | undefined;
    await until(`the verification of ${this.name}`, () => {
      for (const { text } of this.lines.slice(from)) found ??= parseVerification(text);
      return found !== undefined;
    });
    return found!;
  }

  /** The process is killed, with the VM in it. */
  async die(): Promise<void> {
    await this.host.dispose();
    this.guest.running.delete(this.name);
  }
}

/** Indices of the pages in which two VMs that stand still differ. */
export async function differingPages(a: VmHost, b: VmHost): Promise<number[]> {
  const differing: number[] = [];
  const [bytesA, bytesB] = [buffer(), buffer()];
  for (let from = 0; from < a.pageCount; from += PAGES_PER_CALL_MAX) {
    const count = Math.min(PAGES_PER_CALL_MAX, a.pageCount - from);
    const pageIndices = Uint32Array.from({ length: count }, (_, i) => from + i);
    await Promise.all([a.readPages(pageIndices, bytesA), b.readPages(pageIndices, bytesB)]);
    for (let i = 0; i < count; i++) {
      const [start, end] = [i * PAGE_BYTES, (i + 1) * PAGE_BYTES];
      if (bytesA.compare(bytesB, start, end, start, end) !== 0) differing.push(from + i);
    }
  }
  return differing;
}

function buffer(): Buffer {
  return Buffer.alloc(PAGES_PER_CALL_MAX * PAGE_BYTES);
}

export async function until(what: string, isSo: () => boolean): Promise<void> {
  const endMs = performance.now() + WAIT_MS_MAX;
  while (!isSo()) {
    if (performance.now() > endMs) throw new Error(`Waited ${WAIT_MS_MAX} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
