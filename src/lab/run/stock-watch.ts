// What QEMU says of its own migration while it goes on, asked again and again, as samples and iterations of the run
// record: the same view of QEMU's methods that Deltavee's own record gives of Deltavee.

import type { QmpClient } from "../../hypervisor/qemu/qmp.ts";
import type { QmpResult } from "../../hypervisor/qemu/qmp-types.ts";
import { NO_PAGES, type PageClasses } from "../../record/schema.ts";
import { epochNowMs, type TimedEntry } from "./timed.ts";

const LOOK_EVERY_MS = 200;

type MigrationInfo = QmpResult<"query-migrate">;
type RamStats = NonNullable<MigrationInfo["ram"]>;

export class StockWatch {
  readonly entries: TimedEntry[] = [];
  readonly #qmp: Pick<QmpClient, "execute">;
  readonly #wireBytes: () => number;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #iteration = -1;
  #isOver = false;

  /** `wireBytes`: what the source has sent on the link since the migration began. */
  constructor(qmp: Pick<QmpClient, "execute">, wireBytes: () => number) {
    this.#qmp = qmp;
    this.#wireBytes = wireBytes;
    this.#next();
  }

  /** Looks once more, and no more after that. */
  async end(): Promise<void> {
    this.stop();
    await this.#looking;
    await this.#look();
  }

  /** Looks no more. Idempotent. */
  stop(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #next(): void {
    if (this.#isOver) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().then(
        () => this.#next(),
        // A QEMU that is gone tells of its migration no more: the method will say why.
        () => {},
      );
    }, LOOK_EVERY_MS);
  }

  async #look(): Promise<void> {
    const info = await this.#qmp.execute("query-migrate");
    if (info.ram === undefined) return;
    this.#note(info, info.ram, epochNowMs());
  }

  #note(info: MigrationInfo, ram: RamStats, epochMs: number): void {
    const pages = pageClasses(info, ram);
    const wireBytes = this.#wireBytes();
    // QEMU counts its looks for dirty pages, of which the first precedes the first pass.
    const iteration = Math.max(0, ram["dirty-sync-count"] - 1);
    const state = {
      iteration,
      remainingBytes: ram.remaining,
      dirtyPagesPerSecond: ram["dirty-pages-rate"],
      wireBytes,
      pages,
    };
    if (iteration > this.#iteration && info.status === "active") {
      this.#iteration = iteration;
      this.entries.push({ epochMs, entry: { type: "iteration", ...state } });
    }
    this.entries.push({
      epochMs,
      entry: {
        ...{ type: "sample", ...state, handedOverBytes: ram.transferred },
        // QEMU's socket is its own business.
        ...{ inFlightBytes: 0, windowBytes: 0 },
        linkBytesPerSecond: (ram.mbps * 1e6) / 8,
        ...(ram["postcopy-requests"] === 0
          ? {}
          : { requestedBytes: ram["postcopy-requests"] * ram["page-size"] }),
      },
    });
  }
}

function pageClasses(info: MigrationInfo, ram: RamStats): PageClasses {
  const xbzrle = info["xbzrle-cache"];
  return {
    ...NO_PAGES,
    zeroPages: ram.duplicate,
    rawPages: Math.max(0, ram.normal - (xbzrle?.overflow ?? 0)),
    ...(xbzrle === undefined
      ? {}
      : { deltaPages: xbzrle.pages, overflowPages: xbzrle.overflow, deltaBytes: xbzrle.bytes }),
  };
}
