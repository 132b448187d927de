// Records the page trace of a real QEMU guest that is migrated to nowhere: its stream is read here at a given rate,
// each page is compared with the one that came before, and after some iterations the migration is cancelled. So the
// trace is that of a page cache as large as the guest, over a link of that rate.

import { openSync, writeSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { XBZRLE_OVERFLOW, xbzrleEncode } from "../src/codec/xbzrle.ts";
import { isZeroPage } from "../src/memory/zero.ts";
import type { StreamBlock, StreamHandler } from "../src/stream/reader.ts";
import { StreamReader } from "../src/stream/reader.ts";
import { PageClass } from "../src/trace/format.ts";
import { TraceWriter } from "../src/trace/writer.ts";
import type { QemuVm } from "../test/support/qemu-vm.ts";

const POLL_MS = 50;
/** QEMU must not find that it may stop the guest. */
const DOWNTIME_LIMIT_MS = 1;

export interface Recording {
  bytesPerSecond: number;
  /** Iterations after the full one. */
  iterations: number;
  limitMs: number;
  file: string;
  contents: boolean;
}

const nothing = () => {};

/** Pages as the destination would have them, and what each record of the stream is against them. */
class Classifier implements StreamHandler {
  readonly #writer: TraceWriter;
  #pageBytes = 0;
  #memories: Uint8Array[] = [];
  /** Per block and page: 1 when the destination holds content, 2 when it holds zeros. */
  #known: Uint8Array[] = [];
  #delta = new Uint8Array(0);
  iteration = 0;

  constructor(writer: TraceWriter) {
    this.#writer = writer;
  }

  ramBlocks(blocks: readonly StreamBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    this.#delta = new Uint8Array(pageBytes);
    this.#memories = blocks.map(({ lengthBytes }) => new Uint8Array(lengthBytes));
    this.#known = blocks.map(({ lengthBytes }) => new Uint8Array(lengthBytes / pageBytes));
    const traced = blocks.map(({ idstr, lengthBytes }) => ({ idstr, pageCount: lengthBytes / pageBytes }));
    this.#writer.ramBlocks(traced, pageBytes);
    this.#writer.codec("xbzrle");
  }

  zeroPage(block: number, page: number): void {
    const pageClass = this.#known[block]![page] === 2 ? PageClass.UNCHANGED : PageClass.ZERO;
    this.#known[block]![page] = 2;
    const at = page * this.#pageBytes;
    this.#memories[block]!.fill(0, at, at + this.#pageBytes);
    this.#writer.observe(block, page, this.iteration, pageClass, 0, this.#memories[block]!, at);
  }

  page(block: number, page: number, bytes: Uint8Array, offset: number): void {
    const pageBytes = this.#pageBytes;
    const known = this.#known[block]![page]!;
    if (isZeroPage(bytes, offset, pageBytes)) {
      this.zeroPage(block, page);
      return;
    }
    let pageClass: PageClass = PageClass.RAW;
    let deltaBytes = 0;
    if (known !== 0) {
      deltaBytes = xbzrleEncode(
        this.#memories[block]!,
        page * pageBytes,
        bytes,
        offset,
        pageBytes,
        this.#delta,
        0,
        pageBytes - 1,
      );
      if (deltaBytes === 0) pageClass = PageClass.UNCHANGED;
      else if (deltaBytes === XBZRLE_OVERFLOW) pageClass = PageClass.OVERFLOW;
      else pageClass = PageClass.DELTA;
    }
    this.#known[block]![page] = 1;
    this.#memories[block]!.set(bytes.subarray(offset, offset + pageBytes), page * pageBytes);
    this.#writer.observe(block, page, this.iteration, pageClass, deltaBytes, bytes, offset);
  }

  xbzrlePage(): void {
    throw new Error("QEMU makes deltas of its own: its capability xbzrle is on");
  }

  verbatim = nothing;
  ramSection = nothing;
  ramSectionEnd = nothing;
  command = nothing;
  stopped = nothing;
  deviceState = nothing;

  opaque(reason: string): void {
    throw new Error(`The stream is not understood: ${reason}`);
  }
}

/** @returns the iterations that were seen after the full one */
export async function recordTrace(vm: QemuVm, recording: Recording): Promise<number> {
  const file = openSync(recording.file, "w");
  const writer = new TraceWriter((chunk) => writeSync(file, chunk), { contents: recording.contents });
  const classifier = new Classifier(writer);
  const reader = new StreamReader(classifier);
  const path = join(vm.folder, "trace.sock");
  let fail: (reason: unknown) => void = nothing;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(nothing);
  const server = createServer((socket) => {
    socket.on("error", nothing);
    socket.on("data", (chunk) => {
      try {
        reader.push(chunk);
      } catch (thrown) {
        socket.destroy();
        fail(thrown);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await vm.qmp.execute("migrate-set-parameters", {
      "max-bandwidth": recording.bytesPerSecond,
      "downtime-limit": DOWNTIME_LIMIT_MS,
    });
    await vm.qmp.execute("migrate", { uri: `unix:${path}` });
    const deadlineMs = performance.now() + recording.limitMs;
    while (classifier.iteration <= recording.iterations && performance.now() < deadlineMs) {
      await Promise.race([sleep(POLL_MS), failed]);
      const { status, ram } = await vm.qmp.execute("query-migrate");
      if (status !== "active" && status !== "setup") break;
      if (ram !== undefined) classifier.iteration = Math.max(0, ram["dirty-sync-count"] - 1);
    }
    await vm.qmp.execute("migrate_cancel");
  } finally {
    server.close();
    writer.end();
  }
  return classifier.iteration;
}
