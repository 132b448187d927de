// What the run record is told of a migration at the source: iterations, samples, and the summary at the end.

import type { VmWhere } from "../../base/errors.ts";
import type { OutgoingStatus } from "../ports.ts";
import type { Expectation } from "../switchover/switchover-control.ts";
import type { SourceOptions, SourceOutcome } from "./options.ts";
import type { SourcePipeline } from "./pipeline.ts";

const SAMPLE_EVERY_MS = 250;

/** What the engine has seen of the course of it, as far as it has come to that. */
export interface Course {
  /** Pause of the guest to its resumption. */
  downtimeMs: number | undefined;
  forecastDowntimeMs: number | undefined;
  /** Post-copy: since when, and what the destination had to ask for. */
  postcopySinceMs: number | undefined;
  requestedBytes: number;
}

export class SourceAccount {
  readonly #options: Pick<SourceOptions, "record" | "clock" | "cpuMs">;
  readonly #pipeline: SourcePipeline;
  readonly #startMs: number;
  #iteration = -1;
  #sampledMs = Number.NEGATIVE_INFINITY;

  constructor(options: Pick<SourceOptions, "record" | "clock" | "cpuMs">, pipeline: SourcePipeline) {
    this.#options = options;
    this.#pipeline = pipeline;
    this.#startMs = options.clock.nowMs();
  }

  sampleIfDue(status: OutgoingStatus, expectation: Expectation, course: Course): void {
    // What the guest writes to begins to show with its second pass, and a migration may be over soon after.
    const isSecondPass = this.#iteration < 1 && (status.iteration ?? 0) >= 1;
    if (isSecondPass || this.#options.clock.nowMs() - this.#sampledMs >= SAMPLE_EVERY_MS)
      this.sample(status, expectation, course);
  }

  sample(status: OutgoingStatus, expectation: Expectation, course: Course): void {
    const { record, cpuMs, clock } = this.#options;
    const { rewriter, intake, link } = this.#pipeline;
    this.#sampledMs = clock.nowMs();
    const { iteration, remainingBytes, dirtyPagesPerSecond } = status;
    const figures = link.figures;
    const known = {
      ...(remainingBytes === undefined ? {} : { remainingBytes }),
      ...(dirtyPagesPerSecond === undefined ? {} : { dirtyPagesPerSecond }),
    };
    if (iteration !== undefined && iteration > this.#iteration) {
      this.#iteration = iteration;
      rewriter.iterationBegan(iteration);
      const { wireBytes } = figures;
      record.add({ type: "iteration", iteration, wireBytes, pages: { ...rewriter.pages }, ...known });
    }
    const cache = rewriter.cache?.stats;
    record.add({
      type: "sample",
      handedOverBytes: intake.handedOverBytes,
      wireBytes: figures.wireBytes,
      inFlightBytes: figures.inFlightBytes,
      windowBytes: figures.windowBytes,
      linkBytesPerSecond: figures.linkBytesPerSecond,
      ...(figures.roundTripMs === undefined ? {} : { roundTripMs: figures.roundTripMs }),
      ...(iteration === undefined ? {} : { iteration }),
      ...known,
      ...expectation,
      ...(course.postcopySinceMs === undefined ? {} : { requestedBytes: course.requestedBytes }),
      pages: { ...rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
  }

  /** `totalMs`: as of when it was over, which is before the hypervisor was asked for its last figures. */
  summary(
    outcome: SourceOutcome["outcome"],
    vm: VmWhere,
    totalMs: number,
    status: OutgoingStatus,
    course: Course,
  ): void {
    const { record, clock, cpuMs } = this.#options;
    const { rewriter, intake, link } = this.#pipeline;
    const { downtimeMs, forecastDowntimeMs, postcopySinceMs, requestedBytes } = course;
    const cache = rewriter.cache?.stats;
    const { downtimeMs: downtimeMsReported, iteration } = status;
    const isCompleted = outcome === "completed";
    record.add({
      type: "summary",
      outcome,
      vm,
      totalMs,
      ...(isCompleted && downtimeMs !== undefined ? { downtimeMs } : {}),
      // Of pre-copy, which was left because it was too long.
      ...(isCompleted && postcopySinceMs === undefined && forecastDowntimeMs !== undefined
        ? { forecastDowntimeMs }
        : {}),
      ...(isCompleted && downtimeMsReported !== undefined ? { downtimeMsReported } : {}),
      ...(postcopySinceMs === undefined
        ? {}
        : { postcopyMs: clock.nowMs() - postcopySinceMs, requestedBytes }),
      handedOverBytes: intake.handedOverBytes,
      wireBytes: link.figures.wireBytes,
      ...(iteration === undefined ? {} : { iterations: iteration + 1 }),
      pages: { ...rewriter.pages },
      ...(cache === undefined ? {} : { cache: { ...cache } }),
      ...(cpuMs === undefined ? {} : { cpuMs: cpuMs() }),
    });
  }

  /** Since the migration began. */
  get elapsedMs(): number {
    return this.#options.clock.nowMs() - this.#startMs;
  }
}
