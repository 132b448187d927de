import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { simulatedRecord } from "../../../test/support/simulated-record.ts";
import { readRecordFile } from "../../record/file-reader.ts";
import { eventsOf } from "../../report/figures.ts";
import { MergedRecord } from "./merged-record.ts";
import { hostNowMs } from "./messages.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-merged-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const [run] = eventsOf(simulatedRecord("delta"), "run");

test("Reports of two processes become one record that reads back, in order, whatever order they came in", async () => {
  const path = join(folder, "both.ndjson");
  const record = await MergedRecord.open(path, []);
  const startMs = hostNowMs();
  record.add(run!);
  for (const event of simulatedRecord("delta").slice(1)) {
    // The source's clock has another beginning; and reports of the destination overtake its own.
    record.fromSource({ ...event, atMs: event.atMs + 1e6 }, startMs + event.atMs);
    if (event.type === "phase") record.fromDestination(event, startMs + event.atMs + 30);
  }
  record.fromDestination({ type: "notice", atMs: 3, message: "hello" }, startMs + 1e5);
  record.beat({ side: "destination", counter: 7, gapMs: 84, hostMs: startMs + 1e5 + 1 });
  record.finish({ heartbeatGapMs: 84, memoryVerified: true });
  expect(await record.close()).toBeUndefined();

  const { events, notices } = await readRecordFile(path);
  expect(notices).toEqual([]);
  expect(events).toEqual(record.events);
  expect(eventsOf(events, "phase").filter(({ phase }) => phase === "iterating")).toHaveLength(1);
  expect(eventsOf(events, "notice").at(-1)?.message).toBe("At the destination: hello");
  expect(events.at(-1)).toMatchObject({ type: "summary", heartbeatGapMs: 84, memoryVerified: true });
  expect(events.at(-1)?.atMs).toBeGreaterThan(1e5);
});

test("A source that died has a summary all the same: failed, and nobody knows where the guest is", async () => {
  const record = await MergedRecord.open(join(folder, "died.ndjson"), []);
  record.add(run!);
  const sample = eventsOf(simulatedRecord("delta"), "sample").at(-1)!;
  record.fromSource(sample, hostNowMs());
  record.finish({});
  record.finish({});
  await record.close();
  expect(record.events.at(-1)).toMatchObject({
    type: "summary",
    outcome: "failed",
    vm: "unknown",
    wireBytes: sample.wireBytes,
  });
  expect(eventsOf(record.events, "summary")).toHaveLength(1);
});
