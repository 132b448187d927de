// A v86 VM in a thread of its own, seen from outside: what the thread that does the migration needs of it, as
// promises. The guest runs on while this side is busy, and the other way round. Knows nothing of v86.

import { Worker } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { workerLocation } from "../../base/worker-location.ts";
import type { Compatibility } from "./compatibility.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import type { Kernel } from "./kernel.ts";
import { type Message, type Operation, type Operations, PAGES_PER_CALL_MAX } from "./protocol.ts";

export interface VmHostOptions {
  readonly memoryBytes: number;
  /** The guest to boot, on the source. A destination has none: it waits for pages and a device state. */
  readonly kernel?: Kernel;
  /**
   * Called for each line of the guest's first serial port. `hostMs` is when the guest ended it, on the monotonic
   * clock that all processes of this host share (process.hrtime), so that lines of both sides can be compared.
   */
  readonly onSerialLine?: (line: string, hostMs: number) => void;
  /** Called once if the VM dies by itself (not by dispose). All calls fail with the same error from then on. */
  readonly onFailure?: (error: DeltaveeError) => void;
}

interface Pending {
  resolve(reply: unknown): void;
  reject(error: DeltaveeError): void;
}

export class VmHost {
  readonly memoryBytes: number;
  readonly pageCount: number;
  readonly #worker: Worker;
  readonly #options: VmHostOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #exchange = new Uint8Array(new SharedArrayBuffer(PAGES_PER_CALL_MAX * PAGE_BYTES));
  #last: Promise<unknown> = Promise.resolve();
  #nextId = 1;
  #compatibility: Compatibility = "";
  #ended: DeltaveeError | undefined;

  /**
   * The VM, ready and not running.
   * @throws DeltaveeError USAGE for a kernel or a size of RAM that v86 cannot run
   * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE if this release of v86 lacks what migration needs
   */
  static async open(options: VmHostOptions): Promise<VmHost> {
    const host = new VmHost(options);
    const { memoryBytes, kernel } = options;
    try {
      host.#compatibility = await host.#call("open", {
        memoryBytes,
        exchange: host.#exchange.buffer,
        ...(kernel === undefined ? {} : { kernel: { ...kernel, elf: copyOf(kernel.elf) } }),
      });
    } catch (error) {
      await host.dispose();
      throw error;
    }
    return host;
  }

  private constructor(options: VmHostOptions) {
    this.memoryBytes = options.memoryBytes;
    this.pageCount = options.memoryBytes / PAGE_BYTES;
    this.#options = options;
    this.#worker = new Worker(workerLocation("hypervisor/v86/vm-worker"));
    this.#worker.on("message", (message: Message) => this.#receive(message));
    this.#worker.on("error", (cause) => this.#die("The thread of the VM died", cause));
    this.#worker.on("messageerror", (cause) =>
      this.#die("The thread of the VM sent what cannot be read", cause),
    );
    this.#worker.on("exit", (exitCode) => this.#die(`The thread of the VM ended with code ${exitCode}`));
  }

  /** What the other side's must be equal to: see assertCompatible. */
  get compatibility(): Compatibility {
    return this.#compatibility;
  }

  /** It has died or was disposed of: every call fails. */
  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Lets the vCPU run: at first, after a stop, or after a restore. */
  async run(): Promise<void> {
    await this.#inTurn(() => this.#call("run", null));
  }

  /** Stops the vCPU. When it resolves the guest executes nothing and its RAM stands still. */
  async stop(): Promise<void> {
    await this.#inTurn(() => this.#call("stop", null));
  }

  /** Forgets what was taken: the next destination is a fresh one, whose RAM is all zeros. */
  async resetScan(): Promise<void> {
    await this.#inTurn(() => this.#call("resetScan", null));
  }

  /** Indices, ascending, of the pages that differ from what was last taken of them (zeros, if nothing was). */
  scan(): Promise<Uint32Array> {
    return this.#inTurn(() => this.#call("scan", null));
  }

  /**
   * Copies the pages, as they are now, one behind the other to the start of `target`. They count as taken: the
   * destination is going to hold them. At most PAGES_PER_CALL_MAX pages.
   */
  takePages(pageIndices: Uint32Array, target: Uint8Array): Promise<void> {
    return this.#fetchPages("takePages", pageIndices, target);
  }

  /** As takePages, but only looks: the next scan is not affected. */
  readPages(pageIndices: Uint32Array, target: Uint8Array): Promise<void> {
    return this.#fetchPages("readPages", pageIndices, target);
  }

  /**
   * Writes pages, one behind the other in `pages`, into the RAM of a destination that has not been restored. At
   * most PAGES_PER_CALL_MAX pages; neither array may change until it resolves.
   */
  async writePages(pageIndices: Uint32Array, pages: Uint8Array): Promise<void> {
    assertPages(pageIndices, pages);
    await this.#inTurn(async () => {
      this.#exchange.set(pages.subarray(0, pageIndices.length * PAGE_BYTES));
      await this.#call("writePages", pageIndices.slice());
    });
  }

  /**
   * Loads the next bytes of a migration stream into a destination. True: that was all of it, the VM is now the
   * one that was saved, and stopped. After an error it can only be disposed of.
   * @throws DeltaveeError STREAM_CORRUPT, XBZRLE_CORRUPT, HYPERVISOR_INCOMPATIBLE, HYPERVISOR_FAILED
   */
  async loadStream(bytes: Uint8Array): Promise<boolean> {
    return this.#inTurn(async () => {
      let isComplete = false;
      for (let start = 0; start < bytes.length; start += this.#exchange.length) {
        const piece = bytes.subarray(start, start + this.#exchange.length);
        this.#exchange.set(piece);
        isComplete = await this.#call("loadStream", piece.length);
      }
      return isComplete;
    });
  }

  /** All of a stopped VM but its RAM. It may run on afterwards. */
  saveDeviceState(): Promise<Uint8Array> {
    return this.#inTurn(() => this.#call("saveDeviceState", null));
  }

  /**
   * Makes a destination, whose RAM has been written, the VM that was saved; it is then stopped. After an error
   * it can only be disposed of.
   * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE, STREAM_CORRUPT, HYPERVISOR_FAILED
   */
  async restoreDeviceState(bytes: Uint8Array): Promise<void> {
    await this.#inTurn(() => this.#call("restoreDeviceState", copyOf(bytes)));
  }

  /** Sends text to the guest's first serial port. */
  async sendSerial(text: string): Promise<void> {
    await this.#inTurn(() => this.#call("sendSerial", text));
  }

  /** Ends the VM and its thread, whatever it is doing. Calls that are under way fail. */
  async dispose(): Promise<void> {
    this.#end(new DeltaveeError("HYPERVISOR_FAILED", "The VM has been disposed of"));
    await this.#worker.terminate();
  }

  async #fetchPages(
    operation: "takePages" | "readPages",
    pageIndices: Uint32Array,
    target: Uint8Array,
  ): Promise<void> {
    assertPages(pageIndices, target);
    await this.#inTurn(async () => {
      await this.#call(operation, pageIndices.slice());
      target.set(this.#exchange.subarray(0, pageIndices.length * PAGE_BYTES));
    });
  }

  /** One call at a time, in the order in which they were made: there is one exchange, and a stop takes its time. */
  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  #call<Name extends Operation>(
    operation: Name,
    request: Operations[Name]["request"],
  ): Promise<Operations[Name]["reply"]> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#pending.set(id, { resolve: resolve as Pending["resolve"], reject });
      // An array here is a copy that its sender has made for this.
      const moved = ArrayBuffer.isView(request) ? [request.buffer] : [];
      this.#worker.postMessage({ id, operation, request }, moved);
    });
  }

  #receive(message: Message): void {
    if (message.type === "serial") {
      this.#options.onSerialLine?.(message.line, message.hostMs);
      return;
    }
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    this.#pending.delete(message.id);
    if (message.type === "reply") {
      pending.resolve(message.reply);
    } else {
      const { code, message: text, cause } = message.error;
      pending.reject(new DeltaveeError(code, text, cause === undefined ? {} : { cause: new Error(cause) }));
    }
  }

  #die(message: string, cause?: unknown): void {
    if (this.#ended !== undefined) return;
    const error = new DeltaveeError(
      "HYPERVISOR_FAILED",
      message,
      cause === undefined ? {} : { cause: toError(cause) },
    );
    this.#end(error);
    this.#options.onFailure?.(error);
  }

  #end(error: DeltaveeError): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }
}

/** In a buffer of its own, to be moved (the slice() of a Buffer would not copy). */
function copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function assertPages(pageIndices: Uint32Array, pages: Uint8Array): void {
  assert(pageIndices.length <= PAGES_PER_CALL_MAX, `more than ${PAGES_PER_CALL_MAX} pages in one call`);
  assert(pages.length >= pageIndices.length * PAGE_BYTES, "there is no room for a page of each index");
}
