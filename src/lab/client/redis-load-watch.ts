// Writes to a Redis in the guest as applications do, over several connections with several writes under way on each:
// how many per second and how long they took before, during and after a migration; and in the end, whether what had
// been acknowledged is there. Knows nothing of the guest but its address.

import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";
import type { Address } from "./connect.ts";
import { LatencyHistogram } from "./histogram.ts";
import { metricInPhase, type Point, Samples, spansOf, thinned } from "./phases.ts";
import { epochNowMs, type Lab, type Phase } from "./protocol.ts";
import { RedisConnection } from "./redis.ts";
import { documentOf } from "./redis-values.ts";
import { type Finding, WriteLedger } from "./write-ledger.ts";

const optionsSchema = v.strictObject({
  host: v.string(),
  port: v.optional(v.pipe(v.integer(), v.minValue(1), v.maxValue(65535)), 6379),
  /** populate: writes version 0 of every key, and that is all. load: goes on writing to a store that has them. */
  task: v.picklist(["populate", "load"]),
  keys: v.pipe(v.integer(), v.minValue(1), v.maxValue(10_000_000)),
  valueBytes: v.pipe(v.number(), v.minValue(16), v.maxValue(65_536)),
  connections: v.optional(v.pipe(v.integer(), v.minValue(1), v.maxValue(64)), 4),
  /** Writes that each connection sends at once. */
  pipelineDepth: v.optional(v.pipe(v.integer(), v.minValue(1), v.maxValue(1024)), 8),
  /** All connections together; 0: as many as the store takes. */
  writesPerSecond: v.optional(v.pipe(v.number(), v.minValue(0)), 0),
  beforeMs: v.optional(v.pipe(v.number(), v.minValue(0)), 3000),
});

export type RedisLoadOptions = v.InferInput<typeof optionsSchema>;
type Options = v.InferOutput<typeof optionsSchema>;

/** What an application would not wait for any longer. */
const TIMEOUT_MS = 5000;
const CONNECT_TIMEOUT_MS = 10_000;
const RETRY_MS = 100;
/** When all is over, what is still under way may take so long. */
const DRAIN_MS = 15_000;
const POPULATE_DEPTH = 64;
const READ_DEPTH = 64;
const READ_KEYS_MAX = 20_000;
const READ_TIMEOUT_MS = 30_000;
/** One point of the series of latencies and of writes. */
const STEP_MS = 250;

/** @throws Error when the store cannot be reached at all */
export async function watchRedisLoad(lab: Lab): Promise<ClientView> {
  const options = v.parsed(optionsSchema, lab.options);
  if (options.task === "populate") {
    await populate(options);
    lab.ready();
    await lab.finishing;
    return { metrics: {}, failures: [], series: [] };
  }
  const load = new RedisLoad(lab, options);
  await load.start();
  await sleep(options.beforeMs);
  lab.ready();
  await lab.finishing;
  return await load.finish();
}

/** The server may have been started a moment ago only. */
async function openInTime(address: Address): Promise<RedisConnection> {
  for (const beganMs = epochNowMs(); ; await sleep(RETRY_MS)) {
    try {
      return await RedisConnection.open(address, CONNECT_TIMEOUT_MS);
    } catch (thrown) {
      if (epochNowMs() - beganMs > CONNECT_TIMEOUT_MS) throw thrown;
    }
  }
}

function keyName(key: number): string {
  return `document:${key}`;
}

function setCommand(key: number, version: number, valueBytes: number): readonly string[] {
  return ["SET", keyName(key), documentOf(key, version, valueBytes)];
}

async function populate({ host, port, keys, valueBytes, connections }: Options): Promise<void> {
  let nextKey = 0;
  const write = async () => {
    const connection = await openInTime({ host, port });
    while (nextKey < keys) {
      const commands: (readonly string[])[] = [];
      for (; commands.length < POPULATE_DEPTH && nextKey < keys; nextKey++) {
        commands.push(setCommand(nextKey, 0, valueBytes));
      }
      const refused = (await connection.pipeline(commands)).find((reply) => reply !== "OK");
      if (refused !== undefined) throw new Error(`Redis refused a write: ${JSON.stringify(refused)}`);
    }
    connection.close();
  };
  await Promise.all(Array.from({ length: connections }, write));
}

class RedisLoad {
  readonly #lab: Lab;
  readonly #options: Options;
  readonly #ledger: WriteLedger;
  readonly #latencies: Readonly<Record<Phase, LatencyHistogram>> = {
    before: new LatencyHistogram(),
    during: new LatencyHistogram(),
    after: new LatencyHistogram(),
  };
  readonly #acknowledged = new Samples();
  readonly #slowest: Point[] = [];
  #acknowledgedCount = 0;
  #refusedCount = 0;
  #lateCount = 0;
  #brokenCount = 0;
  #lastReplyMs: number | undefined;
  #gapMsMax = 0;
  #steadyMs = Number.POSITIVE_INFINITY;
  #isEnding = false;
  #writers: Promise<void>[] = [];

  constructor(lab: Lab, options: Options) {
    this.#lab = lab;
    this.#options = options;
    this.#ledger = new WriteLedger(options.keys, options.valueBytes);
  }

  async start(): Promise<void> {
    const { connections } = this.#options;
    const opened = await Promise.all(Array.from({ length: connections }, () => this.#open()));
    this.#steadyMs = epochNowMs();
    this.#writers = opened.map((connection, index) => this.#write(connection, index));
  }

  #open(): Promise<RedisConnection> {
    return RedisConnection.open(this.#options, CONNECT_TIMEOUT_MS);
  }

  /** Each connection has keys of its own: the order of writes to one key is that of one connection. */
  async #write(first: RedisConnection, index: number): Promise<void> {
    const { keys, connections, pipelineDepth, writesPerSecond, valueBytes } = this.#options;
    const keyCount = Math.ceil((keys - index) / connections);
    if (keyCount <= 0) return first.close();
    const periodMs = writesPerSecond === 0 ? 0 : (1000 * pipelineDepth * connections) / writesPerSecond;
    let connection = first;
    for (let dueMs = epochNowMs(); !this.#isEnding; ) {
      const batch = Array.from({ length: pipelineDepth }, () => {
        const key = index + connections * Math.floor(Math.random() * keyCount);
        return { key, version: this.#ledger.send(key) };
      });
      const sentMs = epochNowMs();
      try {
        const replies = await connection.pipeline(
          batch.map(({ key, version }) => setCommand(key, version, valueBytes)),
        );
        batch.forEach(({ key, version }, at) => {
          if (replies[at] === "OK") this.#ledger.acknowledge(key, version);
          else this.#refusedCount++;
        });
        this.#replied(sentMs, epochNowMs(), batch.length);
      } catch {
        // The connection is gone; what it had under way may or may not have arrived (the ledger knows).
        this.#brokenCount++;
        connection = await this.#reopen();
      }
      dueMs = Math.max(dueMs + periodMs, epochNowMs() - periodMs);
      const restMs = dueMs - epochNowMs();
      if (restMs > 0) await sleep(restMs);
    }
    connection.close();
  }

  async #reopen(): Promise<RedisConnection> {
    for (;;) {
      try {
        return await this.#open();
      } catch (thrown) {
        if (this.#isEnding) throw toError(thrown);
        await sleep(RETRY_MS);
      }
    }
  }

  #replied(sentMs: number, nowMs: number, count: number): void {
    const latencyMs = nowMs - sentMs;
    const { phase } = this.#lab;
    this.#latencies[phase].add(latencyMs);
    this.#acknowledgedCount += count;
    this.#acknowledged.push(nowMs, this.#acknowledgedCount);
    if (latencyMs > TIMEOUT_MS) this.#lateCount += count;
    if (phase !== "before" && this.#lastReplyMs !== undefined) {
      this.#gapMsMax = Math.max(this.#gapMsMax, nowMs - this.#lastReplyMs);
    }
    this.#lastReplyMs = nowMs;
    const last = this.#slowest.at(-1);
    if (last === undefined || nowMs - last.epochMs >= STEP_MS) {
      this.#slowest.push({ epochMs: nowMs, value: latencyMs });
    } else if (latencyMs > last.value) {
      this.#slowest[this.#slowest.length - 1] = { epochMs: last.epochMs, value: latencyMs };
    }
  }

  async finish(): Promise<ClientView> {
    const finishedMs = epochNowMs();
    this.#isEnding = true;
    const failures: string[] = [];
    if (!(await this.#drain())) failures.push("writes were never answered");
    const metrics: Record<string, number> = {};
    const spans = spansOf({
      steadyMs: this.#steadyMs,
      beganMs: this.#lab.migrationBeganMs,
      endedMs: this.#lab.migrationEndedMs,
      finishedMs,
    });
    for (const [phase, span] of spans) {
      const rate = this.#acknowledged.ratePerSecond(span);
      if (rate !== undefined) metrics[metricInPhase("throughput", phase)] = rate;
      const latencies = this.#latencies[phase];
      const [median, high] = [latencies.percentileMs(0.5), latencies.percentileMs(0.99)];
      if (median === undefined || high === undefined) continue;
      metrics[metricInPhase("latencyMedianMs", phase)] = median;
      metrics[metricInPhase("latency99Ms", phase)] = high;
      metrics[metricInPhase("latencyMaxMs", phase)] = latencies.maxMs;
    }
    if (this.#lab.phase !== "before") {
      metrics.serviceDownMs = Math.max(this.#gapMsMax, finishedMs - (this.#lastReplyMs ?? this.#steadyMs));
    }
    metrics.lateWrites = this.#lateCount;
    if (this.#lateCount > 0)
      failures.push(`${this.#lateCount} writes took longer than ${TIMEOUT_MS / 1000} s`);
    if (this.#refusedCount > 0) failures.push(`${this.#refusedCount} writes refused`);
    if (this.#brokenCount > 0) failures.push(`${this.#brokenCount} connections lost`);
    await this.#readBack(metrics, failures);
    return { metrics, failures, series: this.#series() };
  }

  /** Whether all that was under way came to its end. */
  async #drain(): Promise<boolean> {
    const timedOut = new AbortController();
    const isLate = sleep(DRAIN_MS, false, { signal: timedOut.signal }).catch(() => false);
    const settled = Promise.allSettled(this.#writers).then((all) =>
      all.every(({ status }) => status === "fulfilled"),
    );
    const isDrained = await Promise.race([settled, isLate]);
    timedOut.abort();
    return isDrained;
  }

  async #readBack(metrics: Record<string, number>, failures: string[]): Promise<void> {
    const keys = this.#ledger.writtenKeys(READ_KEYS_MAX);
    const found: Record<Finding, number> = { good: 0, lost: 0, damaged: 0 };
    try {
      const connection = await this.#open();
      const timeout = setTimeout(() => connection.close(), READ_TIMEOUT_MS);
      for (let at = 0; at < keys.length; at += READ_DEPTH) {
        const asked = keys.slice(at, at + READ_DEPTH);
        const replies = await connection.pipeline(asked.map((key) => ["GET", keyName(key)]));
        replies.forEach((reply, index) => {
          const stored = typeof reply === "string" || reply === null ? reply : "";
          found[this.#ledger.judge(asked[index]!, stored)]++;
        });
      }
      clearTimeout(timeout);
      connection.close();
    } catch (thrown) {
      failures.push(`acknowledged writes could not be read back: ${toError(thrown).message}`);
      return;
    }
    metrics.checkedWrites = found.good + found.lost + found.damaged;
    metrics.lostWrites = found.lost;
    metrics.damagedValues = found.damaged;
    if (found.lost > 0) failures.push(`${found.lost} acknowledged writes lost`);
    if (found.damaged > 0) failures.push(`${found.damaged} values damaged`);
  }

  #series(): ClientView["series"] {
    return [
      { name: "writes", unit: "1/s", points: this.#acknowledged.rates(undefined, STEP_MS) },
      { name: "slowest write", unit: "ms", points: thinned(this.#slowest, (values) => Math.max(...values)) },
    ].filter(({ points }) => points.length > 0);
  }
}
