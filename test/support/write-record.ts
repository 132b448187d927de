// Entries written as a record, on a virtual clock: what was recorded, and the text of the file.

import { VirtualClock } from "../../src/base/clock.ts";
import type { RecordEntry, RecordEvent } from "../../src/record/schema.ts";
import { RunRecord } from "../../src/record/writer.ts";

export function writeRecord(entries: readonly { afterMs: number; entry: RecordEntry }[]): {
  events: readonly RecordEvent[];
  text: string;
} {
  const clock = new VirtualClock();
  let text = "";
  const record = new RunRecord({
    clock,
    sink: (line) => {
      text += line;
    },
  });
  for (const { afterMs, entry } of entries) {
    clock.advance(afterMs);
    record.add(entry);
  }
  return { events: record.events, text };
}
