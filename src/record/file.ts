// Run records that are written to files: with file-reader.ts the rim of src/record, which alone touches the disk.
// Lines are queued and written behind the migration's back, because a slow disk must not hold up a switchover;
// a disk that fails or hangs ends the recording, never the migration.

import { type FileHandle, open, stat } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { toError, UsageError } from "../base/errors.ts";
import { type RecordListener, RunRecord } from "./writer.ts";

/** 1 GiB of text, about a day of a busy migration. Writing stops there, and reading refuses more. */
export const RECORD_FILE_CHARS_MAX = 1024 ** 3;

/** Lines that wait for the disk: minutes of recording, so more means that it hangs. */
const QUEUED_CHARS_MAX = 8 * 1024 ** 2;

export class RecordFile {
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #onFailure: (message: string) => void;
  #queue: string[] = [];
  #queuedChars = 0;
  #writtenChars = 0;
  #writing: Promise<void> | undefined;
  #failure: string | undefined;

  private constructor(handle: FileHandle, path: string, onFailure: (message: string) => void) {
    this.#handle = handle;
    this.#path = path;
    this.#onFailure = onFailure;
  }

  /**
   * Creates the file. An existing one that holds something is not touched: it may be the record of the failed
   * run that is being repeated. `onFailure` is called at most once, when recording stops early.
   * @throws UsageError when the file cannot be created: before a migration begins, so the operator can choose.
   */
  static async create(path: string, onFailure: (message: string) => void): Promise<RecordFile> {
    const existing = await stat(path).catch(() => undefined);
    if (existing?.isFile() && existing.size > 0) {
      throw new UsageError(`Will not overwrite ${path}: choose another file for the run record`);
    }
    try {
      return new RecordFile(await open(path, "a"), path, onFailure);
    } catch (cause) {
      throw new UsageError(`Cannot create run record ${path}`, { cause });
    }
  }

  /** Why recording stopped early, if it did. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Queues a line. Never throws and never waits; does nothing once recording has stopped. */
  write(line: string): void {
    if (this.#failure !== undefined) return;
    this.#queue.push(line);
    this.#queuedChars += line.length;
    this.#writtenChars += line.length;
    if (this.#writtenChars > RECORD_FILE_CHARS_MAX) this.#fail("the file has reached its limit");
    else if (this.#queuedChars > QUEUED_CHARS_MAX) this.#fail("the disk does not keep up");
    else this.#writing ??= this.#drain();
  }

  /** Writes what is queued and closes the file. Never rejects: see `failure`. */
  async close(): Promise<void> {
    await this.#writing;
    await this.#handle.close().catch((thrown: unknown) => this.#fail(toError(thrown).message));
  }

  async #drain(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const lines = this.#queue.join("");
        this.#queue = [];
        this.#queuedChars = 0;
        await this.#handle.appendFile(lines);
      }
    } catch (thrown) {
      this.#fail(toError(thrown).message);
    }
    this.#writing = undefined;
  }

  #fail(reason: string): void {
    if (this.#failure !== undefined) return;
    this.#failure = `The run is no longer recorded to ${this.#path}: ${reason}`;
    this.#queue = [];
    this.#queuedChars = 0;
    this.#onFailure(this.#failure);
  }
}

export interface OpenRunRecord {
  readonly record: RunRecord;
  /** After the last event. Resolves to what a person should be told: why the file is not complete. */
  close(): Promise<string | undefined>;
}

/** A record that listeners see and, with `path`, a file holds. @throws UsageError when it cannot be created. */
export async function openRunRecord(options: {
  clock: Clock;
  path?: string | undefined;
  listeners?: readonly RecordListener[] | undefined;
}): Promise<OpenRunRecord> {
  const { clock, path, listeners } = options;
  if (path === undefined) {
    return { record: new RunRecord({ clock, listeners }), close: () => Promise.resolve(undefined) };
  }
  const file = await RecordFile.create(path, (message) => record.add({ type: "notice", message }));
  const record = new RunRecord({ clock, listeners, sink: (line) => file.write(line) });
  return {
    record,
    async close() {
      await file.close();
      return file.failure;
    },
  };
}
