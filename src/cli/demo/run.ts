// One run of the demo: a guest boots in one process, moves to another over a slow link, is watched from outside all
// the while, and at last verifies its own memory. What comes of it is a run record and a list of what was wrong.

import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError, toError, UsageError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import { version } from "../../base/version.ts";
import type { Address } from "../../link/address.ts";
import { Relay } from "../../link/relay.ts";
import type { RecordEvent } from "../../record/schema.ts";
import type { RecordListener } from "../../record/writer.ts";
import { SerialWatch } from "./heartbeat.ts";
import { Host } from "./host.ts";
import { MergedRecord } from "./merged-record.ts";
import type { HypervisorSpec, Method, Report, Side } from "./messages.ts";

export interface RunPlan {
  readonly method: Method;
  readonly hypervisor: HypervisorSpec;
  readonly memoryBytes: number;
  readonly guestOptions: string;
  readonly linkBytesPerSecond: number;
  readonly delayMs: number;
  readonly downtimeMsMax: number;
  readonly recordPath: string;
  readonly signal: AbortSignal;
  /** Makes the listener that shows the run; `nowMs` is the time now on the axis of its events. */
  readonly show: (method: Method, nowMs: () => number) => RecordListener;
}

export interface RunResult {
  readonly label: Method;
  readonly events: readonly RecordEvent[];
  /** Each a sentence; none: the guest has moved, whole. */
  readonly problems: readonly string[];
}

const OPEN_TIMEOUT_MS = 60_000;
const READY_TIMEOUT_MS = 60_000;
/** How long the guest is watched before it moves, and after. */
const BEFORE_MS = 1000;
const AFTER_MS = 1500;
const RESUMED_TIMEOUT_MS = 30_000;
const VERIFY_TIMEOUT_MS = 120_000;
/** The page cache holds all of the guest, with its index, video memory and firmware. */
const CACHE_RAM_RATIO = 1.05;
const CACHE_OTHER_BYTES = 64 * 1024 * 1024;

/** @throws the signal's reason when it is aborted, UsageError when the record cannot be written */
export async function runOnce(plan: RunPlan): Promise<RunResult> {
  const problems: string[] = [];
  const record = await openRecord(plan);
  const run = new Run(plan, record);
  const aborted = new Promise<never>((_resolve, reject) => {
    plan.signal.addEventListener("abort", () => reject(plan.signal.reason), { once: true });
  });
  try {
    const moved = run.move();
    await Promise.race([moved, aborted]);
  } catch (thrown) {
    plan.signal.throwIfAborted();
    const { message } = toError(thrown);
    // What the hypervisor or the guest does not take: not a failure, but for the user to choose otherwise.
    if (thrown instanceof DeltaveeError && thrown.code === "USAGE") throw new UsageError(message);
    problems.push(message);
    const isTold = record.events.some((event) => event.type === "error" && event.message === message);
    const code = thrown instanceof DeltaveeError ? thrown.code : "INTERNAL";
    if (!isTold) record.add({ type: "error", code, message });
  } finally {
    await run.close();
    run.finishRecord();
    const incomplete = await record.close();
    if (incomplete !== undefined) problems.push(incomplete);
  }
  return { label: plan.method, events: record.events, problems: [...problems, ...run.problems] };
}

/** What shows the run needs the record's time, which there is only when it is open. */
async function openRecord(plan: RunPlan): Promise<MergedRecord> {
  let listener: RecordListener = () => {};
  const record = await MergedRecord.open(plan.recordPath, [(event) => listener(event)]);
  listener = plan.show(plan.method, () => record.nowMs());
  return record;
}

class Run {
  readonly problems: string[] = [];
  readonly #plan: RunPlan;
  readonly #record: MergedRecord;
  readonly #serial: SerialWatch;
  readonly #source: Host;
  readonly #destination: Host;
  /** Called for everything that the guest says: waits look whether it is what they wait for. */
  readonly #heard = new Set<() => void>();
  #relay: Relay | undefined;
  #lastLine = "";
  #memoryVerified: boolean | undefined;

  constructor(plan: RunPlan, record: MergedRecord) {
    this.#plan = plan;
    this.#record = record;
    this.#serial = new SerialWatch({
      beat: (beat) => {
        record.beat(beat);
        this.#notify();
      },
      line: (line) => {
        if (line !== "") this.#lastLine = line;
        this.#notify();
      },
    });
    this.#source = new Host("source", (report) => this.#report("source", report));
    this.#destination = new Host("destination", (report) => this.#report("destination", report));
  }

  /** @throws DeltaveeError if it fails on the way; what is wrong with the guest on arrival goes to `problems` */
  async move(): Promise<void> {
    const { method, linkBytesPerSecond, delayMs, downtimeMsMax } = this.#plan;
    const [opened] = await Promise.all([
      this.#open(this.#source, "source"),
      this.#open(this.#destination, "destination"),
    ]);
    const cacheBytesMax = Math.ceil(this.#plan.memoryBytes * CACHE_RAM_RATIO) + CACHE_OTHER_BYTES;
    this.#record.add(this.#runEntry(opened.hypervisor, cacheBytesMax));

    this.#source.send({ type: "run" });
    await this.#until("the guest is ready", READY_TIMEOUT_MS, () => {
      if (this.#lastLine.startsWith("ERROR")) {
        throw new DeltaveeError("USAGE", `The guest refuses to start: ${this.#lastLine}`);
      }
      return this.#serial.last !== undefined;
    });
    await this.#unlessFailed(sleep(BEFORE_MS));

    this.#destination.send({ type: "receive", method });
    const { address } = await this.#unlessFailed(this.#destination.next("listening", OPEN_TIMEOUT_MS));
    this.#relay = await Relay.start({
      listen: besides(address),
      to: address,
      bytesPerSecond: linkBytesPerSecond,
      delayMs,
      onError: ({ message }) => this.#record.add({ type: "notice", message }),
    });
    const order = { to: this.#relay.address, method, downtimeMsMax, cacheBytesMax };
    this.#source.send({ type: "migrate", order });
    await Promise.all([ended(this.#source), ended(this.#destination)]);
    await this.#lookAtArrival();
    this.finishRecord();
  }

  /** The last event of the record: what was seen of the guest. Idempotent. */
  finishRecord(): void {
    const { downtimeMs } = this.#serial;
    this.#record.finish({
      ...(downtimeMs === undefined ? {} : { heartbeatGapMs: downtimeMs }),
      ...(this.#memoryVerified === undefined ? {} : { memoryVerified: this.#memoryVerified }),
    });
  }

  /** Ends both processes and the link. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([this.#source.close(), this.#destination.close(), this.#relay?.close()]);
  }

  async #open(host: Host, side: Side): Promise<{ hypervisor: string }> {
    const { hypervisor, memoryBytes, guestOptions } = this.#plan;
    host.send({ type: "open", vm: { side, hypervisor, memoryBytes, guestOptions } });
    return this.#unlessFailed(host.next("opened", OPEN_TIMEOUT_MS));
  }

  #runEntry(hypervisor: string, cacheBytesMax: number) {
    const { method, memoryBytes, downtimeMsMax, linkBytesPerSecond } = this.#plan;
    const isDelta = method === "delta";
    return {
      type: "run" as const,
      version: 1 as const,
      startedAt: new Date().toISOString(),
      deltavee: version,
      side: "source" as const,
      // QEMU's own migration goes straight to a stock QEMU; everything else through the tunnel.
      mode: !isDelta && this.#plan.hypervisor.kind === "qemu" ? ("direct" as const) : ("tunnel" as const),
      method,
      hypervisor,
      guestRamBytes: memoryBytes,
      downtimeMsMax,
      linkBytesPerSecondMax: linkBytesPerSecond,
      ...(isDelta ? { cacheBytesMax } : {}),
      label: method,
    };
  }

  /** Does the guest go on where it was, as the guest it was? */
  async #lookAtArrival(): Promise<void> {
    const serial = this.#serial;
    await this.#until(
      "the guest's heartbeat comes back at the destination",
      RESUMED_TIMEOUT_MS,
      () => serial.last?.side === "destination",
    );
    await this.#unlessFailed(sleep(AFTER_MS));
    this.#destination.send({ type: "type", text: "v" });
    await this.#until("the guest has verified its memory", VERIFY_TIMEOUT_MS, () =>
      this.#lastLine.startsWith("VERIFY"),
    );
    this.#memoryVerified = this.#lastLine.startsWith("VERIFY ok");
    if (!this.#memoryVerified) this.problems.push(`The guest finds its memory damaged: ${this.#lastLine}`);
    if (serial.broken !== undefined) this.problems.push(`The guest did not simply go on: ${serial.broken}`);
  }

  #report(side: Side, report: Report): void {
    if (report.type === "serial") this.#serial.push(side, report.text, report.hostMs);
    else if (report.type === "event" && side === "source")
      this.#record.fromSource(report.event, report.hostMs);
    else if (report.type === "event") this.#record.fromDestination(report.event, report.hostMs);
  }

  #notify(): void {
    for (const look of [...this.#heard]) look();
  }

  /** Resolves once `isSo`, which is asked whenever the guest has said something and may throw. */
  async #until(what: string, timeoutMs: number, isSo: () => boolean): Promise<void> {
    let look = (): void => {};
    let timer: NodeJS.Timeout | undefined;
    try {
      await this.#unlessFailed(
        new Promise<void>((resolve, reject) => {
          look = () => {
            try {
              if (isSo()) resolve();
            } catch (thrown) {
              reject(toError(thrown));
            }
          };
          timer = setTimeout(() => {
            const text = `Waited ${formatMs(timeoutMs)} in vain until ${what}`;
            reject(new DeltaveeError("HYPERVISOR_FAILED", text));
          }, timeoutMs);
          this.#heard.add(look);
          look();
        }),
      );
    } finally {
      clearTimeout(timer);
      this.#heard.delete(look);
    }
  }

  #unlessFailed<Result>(work: Promise<Result>): Promise<Result> {
    return Promise.race([work, this.#source.failed, this.#destination.failed]);
  }
}

/** @throws DeltaveeError if its part of the migration has failed */
async function ended(host: Host): Promise<void> {
  const { error } = await host.next("ended");
  if (error !== undefined) throw new DeltaveeError(error.code, error.message);
}

/** Where the link begins, as near to its end as can be: a port of its own, or a socket in the same folder. */
function besides(address: Address): Address {
  return address.kind === "unix"
    ? { kind: "unix", path: join(dirname(address.path), "link") }
    : { ...address, port: 0 };
}
