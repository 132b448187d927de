// Reads run records as line-reader.ts does, each event checked by schema.ts.

import { checked } from "../base/schema.ts";
import { type EventChecker, LineReader, type ReadRecord } from "./line-reader.ts";
import { recordEventSchema } from "./schema.ts";

const CHECKER: EventChecker = {
  types: new Set(recordEventSchema.options.map((option) => option.entries.type.literal)),
  check(value) {
    const { value: event, mistake } = checked(recordEventSchema, value);
    return mistake === undefined ? event : { issue: mistake };
  },
};

export class RecordReader extends LineReader {
  /** `name`: of the file, for messages. */
  constructor(name: string) {
    super(name, CHECKER);
  }
}

/** A whole record at once. `name` is for messages. @throws DeltaveeError RECORD_INVALID */
export function parseRecord(text: string, name: string): ReadRecord {
  const reader = new RecordReader(name);
  reader.push(text);
  return reader.end();
}
