// Watches a program in the guest that says how far it has come (lab/guest/progress.h): its throughput before, during and
// after a migration by this host's clock, how long nothing was heard of it, and, where it can tell, whether what
// it wrote is still there. Knows nothing of what is counted.

import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";
import { connectInTime } from "./connect.ts";
import { metricInPhase, Samples, SERIES_POINTS_MAX, spansOf } from "./phases.ts";
import { epochNowMs, type Lab } from "./protocol.ts";

export const progressOptionsSchema = v.strictObject({
  address: v.string(),
  port: v.pipe(v.integer(), v.minValue(1), v.maxValue(65535)),
  /** Which of its numbers is the throughput: one that grows ("counter"), or one that is a speed itself ("value"). */
  throughput: v.strictObject({
    field: v.string(),
    kind: v.picklist(["counter", "value"]),
    /** Of the series: "pages written", "pages/s". */
    name: v.string(),
    unit: v.string(),
  }),
  /** A counter of what should have been done beside that of the throughput and was not: `missedShare`. */
  missedField: v.optional(v.string()),
  /** A counter of failures, and what to call them ("runs of the compiler failed"). */
  failures: v.optional(v.strictObject({ field: v.string(), words: v.string() })),
  /** Ask in the end whether what it wrote is still there: `damagedPages`. */
  verify: v.optional(v.boolean(), false),
  /** How long it is watched before the guest may be moved. */
  beforeMs: v.optional(v.pipe(v.number(), v.minValue(0)), 3000),
  /** Shortest step of the series: not shorter than the counter's own. */
  stepMs: v.optional(v.pipe(v.number(), v.minValue(1)), 250),
});

export type ProgressOptions = v.InferInput<typeof progressOptionsSchema>;

/** "progress pages=5 missedPages=0" as its first word and its numbers; undefined for what is no such line. */
export function parseProgressLine(
  line: string,
): { readonly kind: string; readonly fields: ReadonlyMap<string, number> } | undefined {
  const [kind, ...words] = line.split(" ");
  const fields = new Map<string, number>();
  for (const word of words) {
    const [, name, value] = /^([A-Za-z]+)=(\d+(?:\.\d+)?)$/.exec(word) ?? [];
    if (name === undefined) return undefined;
    fields.set(name, Number(value));
  }
  return kind === undefined || kind === "" || fields.size === 0 ? undefined : { kind, fields };
}

/** The program may still be filling its memory. */
const CONNECT_TIMEOUT_MS = 60_000;
const POLL_MS = 100;
/** A working set of some GiB is gone through in that time, under emulation too. */
const VERIFY_TIMEOUT_MS = 45_000;
/** Lines come fifty times per second: a program that was silent for so long in the end is not there any more. */
const SILENT_MS = 3000;
const LINE_LENGTH_MAX = 1024;

/** @throws Error when the program cannot be reached, or goes away before the guest may be moved */
export async function watchProgress(lab: Lab): Promise<ClientView> {
  const options = v.parsed(progressOptionsSchema, lab.options);
  const watch = new ProgressWatch(
    lab,
    options,
    await connectInTime({ host: options.address, port: options.port }, CONNECT_TIMEOUT_MS),
  );
  await watch.isSteady();
  lab.ready();
  await lab.finishing;
  return await watch.finish();
}

class ProgressWatch {
  readonly #lab: Lab;
  readonly #options: v.InferOutput<typeof progressOptionsSchema>;
  readonly #socket: Socket;
  readonly #throughput = new Samples();
  /** The same as a series, where it is a speed itself. */
  readonly #speeds = new Samples(SERIES_POINTS_MAX);
  readonly #missed = new Samples();
  #unfinished = "";
  #steadyMs = Number.POSITIVE_INFINITY;
  #lastLineMs: number | undefined;
  #gapMsMax = 0;
  #failureCount = 0;
  #broken: string | undefined;
  #onVerified = (_damagedPages: number | undefined): void => {};

  constructor(lab: Lab, options: v.InferOutput<typeof progressOptionsSchema>, socket: Socket) {
    this.#lab = lab;
    this.#options = options;
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#push(text, epochNowMs()));
    socket.on("error", (error) => this.#break(error.message));
    socket.on("close", () => this.#break("closed"));
  }

  async isSteady(): Promise<void> {
    const { beforeMs, throughput } = this.#options;
    const deadlineMs = epochNowMs() + CONNECT_TIMEOUT_MS;
    while (this.#throughput.points.length === 0) {
      this.#mustBeThere();
      if (epochNowMs() > deadlineMs)
        throw new Error(`The program in the guest does not tell its ${throughput.field}`);
      await sleep(POLL_MS);
    }
    this.#steadyMs = epochNowMs();
    await sleep(beforeMs);
    this.#mustBeThere();
  }

  #mustBeThere(): void {
    if (this.#broken !== undefined) throw new Error(`The program in the guest went away: ${this.#broken}`);
  }

  async finish(): Promise<ClientView> {
    const finishedMs = epochNowMs();
    const failures: string[] = [];
    const metrics: Record<string, number> = {};
    const spans = spansOf({
      steadyMs: this.#steadyMs,
      beganMs: this.#lab.migrationBeganMs,
      endedMs: this.#lab.migrationEndedMs,
      finishedMs,
    });
    const { field, kind, name, unit } = this.#options.throughput;
    for (const [phase, span] of spans) {
      const rate = kind === "counter" ? this.#throughput.ratePerSecond(span) : this.#throughput.mean(span);
      if (rate !== undefined) metrics[metricInPhase("throughput", phase)] = rate;
      const missed = this.#missed.ratePerSecond(span);
      if (phase === "before" && missed !== undefined && rate !== undefined && missed + rate > 0) {
        metrics.missedShare = missed / (missed + rate);
      }
    }
    if (this.#lab.phase !== "before")
      metrics.serviceDownMs = Math.max(this.#gapMsMax, this.#silentMs(finishedMs));
    if (this.#broken !== undefined) failures.push(`connection to the guest's program lost (${this.#broken})`);
    else if (this.#silentMs(finishedMs) > SILENT_MS)
      failures.push("the guest's program is not heard of any more");
    if (this.#failureCount > 0)
      failures.push(`${this.#failureCount} ${this.#options.failures?.words ?? field}`);
    if (this.#options.verify) {
      const damagedPages = await this.#verify();
      if (damagedPages === undefined) failures.push("memory could not be verified");
      else metrics.damagedPages = damagedPages;
      if (damagedPages !== undefined && damagedPages > 0) failures.push(`${damagedPages} pages damaged`);
    }
    this.#socket.destroy();
    const points =
      kind === "counter" ? this.#throughput.rates(undefined, this.#options.stepMs) : this.#speeds.points;
    return { metrics, failures, series: points.length === 0 ? [] : [{ name, unit, points }] };
  }

  #silentMs(nowMs: number): number {
    return nowMs - (this.#lastLineMs ?? this.#steadyMs);
  }

  async #verify(): Promise<number | undefined> {
    if (this.#broken !== undefined) return undefined;
    const verified = new Promise<number | undefined>((resolve) => {
      this.#onVerified = resolve;
    });
    this.#socket.write("verify\n");
    const timedOut = new AbortController();
    const timeout = sleep(VERIFY_TIMEOUT_MS, undefined, { signal: timedOut.signal }).catch(() => undefined);
    const damagedPages = await Promise.race([verified, timeout]);
    timedOut.abort();
    return damagedPages;
  }

  #push(text: string, nowMs: number): void {
    const lines = `${this.#unfinished}${text}`.split("\n");
    this.#unfinished = lines.pop() ?? "";
    if (this.#unfinished.length > LINE_LENGTH_MAX)
      this.#socket.destroy(new Error("what it says has no lines"));
    for (const line of lines) this.#line(line, nowMs);
  }

  #line(line: string, nowMs: number): void {
    const parsed = parseProgressLine(line);
    if (parsed?.kind === "verified") this.#onVerified(parsed.fields.get("damagedPages"));
    if (parsed?.kind !== "progress") return;
    const { fields } = parsed;
    const { throughput, missedField, failures } = this.#options;
    if (this.#lab.phase !== "before" && this.#lastLineMs !== undefined) {
      this.#gapMsMax = Math.max(this.#gapMsMax, nowMs - this.#lastLineMs);
    }
    this.#lastLineMs = nowMs;
    this.#failureCount = (failures && fields.get(failures.field)) ?? this.#failureCount;
    const value = fields.get(throughput.field);
    if (value !== undefined) {
      this.#throughput.push(nowMs, value);
      this.#speeds.push(nowMs, value);
    }
    const missed = missedField === undefined ? undefined : fields.get(missedField);
    if (missed !== undefined) this.#missed.push(nowMs, missed);
  }

  #break(reason: string): void {
    this.#broken ??= reason;
    this.#onVerified(undefined);
  }
}
