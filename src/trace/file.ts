// Page traces in files: the rim of src/trace. Chunks are queued and written behind the migration's back, because a
// slow disk must not hold up a switchover; a disk that fails or hangs ends the trace, never the migration.

import { createReadStream } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { DeltaveeError, toError, UsageError } from "../base/errors.ts";
import { type PageTrace, PageTraceBuilder } from "./page-trace.ts";
import { type TraceHandler, TraceReader } from "./reader.ts";
import { TraceWriter } from "./writer.ts";

/** Chunks that wait for the disk: a second of a trace with contents, minutes of one without. */
const QUEUED_BYTES_MAX = 64 * 1024 ** 2;
const READ_BYTES = 1024 ** 2;

/** A trace that is being written. */
export interface OpenTrace {
  /** Takes the pages; writes nothing any more once the trace has ended early. */
  readonly writer: TraceWriter;
  /** After the last page. Resolves to what a person should be told: why the trace is not complete. */
  close(): Promise<string | undefined>;
}

/**
 * Creates the file. An existing one that holds something is not touched. `contents`: also the pages themselves.
 * @throws UsageError when the file cannot be created
 */
export async function createTrace(path: string, options: { contents: boolean }): Promise<OpenTrace> {
  const existing = await stat(path).catch(() => undefined);
  if (existing?.isFile() && existing.size > 0) {
    throw new UsageError(`Will not overwrite ${path}: choose another file for the page trace`);
  }
  const file = await open(path, "a").catch((cause: unknown) => {
    throw new UsageError(`Cannot create page trace ${path}`, { cause });
  });
  const queue = new ChunkQueue(file, path);
  const writer = new TraceWriter((chunk) => queue.add(chunk), {
    ...options,
    nowMs: () => performance.now(),
  });
  return {
    writer,
    close() {
      writer.end();
      return queue.close();
    },
  };
}

class ChunkQueue {
  readonly #file: FileHandle;
  readonly #path: string;
  #chunks: Uint8Array[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | undefined;
  #failure: string | undefined;

  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  add(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#chunks.push(chunk);
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes > QUEUED_BYTES_MAX) this.#fail("the disk does not keep up");
    else this.#writing ??= this.#drain();
  }

  async close(): Promise<string | undefined> {
    await this.#writing;
    await this.#file.close().catch((thrown: unknown) => this.#fail(toError(thrown).message));
    return this.#failure;
  }

  async #drain(): Promise<void> {
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk === undefined) break;
        await this.#file.appendFile(chunk);
        this.#queuedBytes -= chunk.length;
      }
    } catch (thrown) {
      this.#fail(toError(thrown).message);
    }
    this.#writing = undefined;
  }

  #fail(reason: string): void {
    this.#failure ??= `The page trace ${this.#path} is not complete: ${reason}`;
    this.#chunks = [];
    this.#queuedBytes = 0;
  }
}

/**
 * Reads a trace from its file. @returns what a person should know, if anything
 * @throws DeltaveeError TRACE_INVALID, also when the file cannot be read
 */
export async function readTrace(path: string, handler: TraceHandler): Promise<string | undefined> {
  const reader = new TraceReader(path, handler);
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES })) {
      reader.push(chunk as Uint8Array);
    }
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) throw thrown;
    throw new DeltaveeError("TRACE_INVALID", `Cannot read trace ${path}`, { cause: thrown });
  }
  return reader.end();
}

/** A trace without its contents, in memory. @throws DeltaveeError TRACE_INVALID */
export async function loadTrace(path: string): Promise<{ trace: PageTrace; notice: string | undefined }> {
  const builder = new PageTraceBuilder(path);
  const notice = await readTrace(path, builder);
  return { trace: builder.trace, notice };
}
