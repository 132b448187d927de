// Run records that are read from files.

import { createReadStream } from "node:fs";
import { DeltaveeError, toError } from "../base/errors.ts";
import { RECORD_FILE_CHARS_MAX } from "./file.ts";
import type { ReadRecord } from "./line-reader.ts";
import { RecordReader } from "./reader.ts";

/** @throws DeltaveeError RECORD_INVALID, also when the file cannot be read or is too long. */
export async function readRecordFile(path: string): Promise<ReadRecord> {
  const reader = new RecordReader(path);
  let readChars = 0;
  try {
    for await (const piece of createReadStream(path, { encoding: "utf8" })) {
      readChars += (piece as string).length;
      if (readChars > RECORD_FILE_CHARS_MAX) {
        throw new DeltaveeError("RECORD_INVALID", `Cannot read run record ${path}: longer than 1 GiB`);
      }
      reader.push(piece as string);
    }
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) throw thrown;
    throw new DeltaveeError("RECORD_INVALID", `Cannot read run record ${path}: ${toError(thrown).message}`, {
      cause: thrown,
    });
  }
  return reader.end();
}
