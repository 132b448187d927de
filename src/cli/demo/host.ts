// The demo's side of a host process (host-process.ts): starts it, asks it, hears it, and sees that it ends.

import { type ChildProcess, fork } from "node:child_process";
import { DeltaveeError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type { Report, ReportOf, Request, Side } from "./messages.ts";

/** Compiled: Node 20 runs no TypeScript. */
const HOST_PROGRAM = new URL("./host-process.js", import.meta.url);
const CLOSE_TIMEOUT_MS = 3000;
const STDERR_CHARACTERS_MAX = 4096;

interface Waiter {
  readonly type: Report["type"];
  readonly resolve: (report: Report) => void;
  readonly reject: (error: Error) => void;
}

export class Host {
  readonly #side: Side;
  readonly #child: ChildProcess;
  readonly #listener: (report: Report) => void;
  readonly #waiters = new Set<Waiter>();
  readonly #exited: Promise<void>;
  /** Rejects when the host cannot go on, or has been closed. */
  readonly failed: Promise<never>;
  #rejectFailed!: (error: Error) => void;
  #failure: Error | undefined;
  #stderr = "";

  /** `listener` hears every report, also those that answer a request. */
  constructor(side: Side, listener: (report: Report) => void) {
    this.#side = side;
    this.#listener = listener;
    this.failed = new Promise((_resolve, reject) => {
      this.#rejectFailed = reject;
    });
    // It is for whoever waits for something of it to hear of a failure.
    this.failed.catch(() => {});
    this.#child = fork(HOST_PROGRAM, { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.#child.stderr?.on("data", (text: Buffer) => {
      this.#stderr = `${this.#stderr}${text.toString()}`.slice(-STDERR_CHARACTERS_MAX);
    });
    this.#child.on("message", (report: Report) => this.#receive(report));
    // Not "close": that does not come when we close the channel.
    this.#exited = new Promise((resolve) => {
      this.#child.once("error", (cause) => {
        this.#fail(new DeltaveeError("HYPERVISOR_FAILED", `The ${side} could not be started`, { cause }));
        resolve();
      });
      this.#child.once("exit", (code, signal) => {
        const how = signal ?? `code ${code}`;
        const said = this.#stderr === "" ? "" : `: ${this.#stderr.trim()}`;
        this.#fail(new DeltaveeError("HYPERVISOR_FAILED", `The ${side}'s process ended (${how})${said}`));
        resolve();
      });
    });
  }

  send(request: Request): void {
    // A host that is gone shows in what is waited for.
    if (this.#child.connected) this.#child.send(request, () => {});
  }

  /** The next report of a type. @throws DeltaveeError when the host fails, or says nothing for so long */
  next<Type extends Report["type"]>(type: Type, timeoutMs?: number): Promise<ReportOf<Type>> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const settle = (action: () => void) => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        action();
      };
      const waiter: Waiter = {
        type,
        resolve: (report) => settle(() => resolve(report as ReportOf<Type>)),
        reject: (error) => settle(() => reject(error)),
      };
      this.#waiters.add(waiter);
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              const text = `The ${this.#side}'s process did not answer within ${formatMs(timeoutMs)}`;
              waiter.reject(new DeltaveeError("HYPERVISOR_FAILED", text));
            }, timeoutMs);
    });
  }

  /** Ends the VM and its process. Idempotent. */
  async close(): Promise<void> {
    this.#fail(new DeltaveeError("CANCELLED", `The ${this.#side} has been closed`));
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), CLOSE_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  #receive(report: Report): void {
    if (this.#failure !== undefined) return;
    if (report.type === "failed") {
      const { code, message } = report.error;
      this.#fail(new DeltaveeError(code, `The ${this.#side} failed: ${message}`));
      return;
    }
    this.#listener(report);
    for (const waiter of [...this.#waiters]) if (waiter.type === report.type) waiter.resolve(report);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#rejectFailed(error);
    for (const waiter of [...this.#waiters]) waiter.reject(error);
  }
}
