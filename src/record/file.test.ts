import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { VirtualClock } from "../base/clock.ts";
import { UsageError } from "../base/errors.ts";
import { openRunRecord, RecordFile } from "./file.ts";
import { readRecordFile } from "./file-reader.ts";
import type { RecordEvent } from "./schema.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-record-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("A run recorded to a file is read back as it was", async () => {
  const path = join(folder, "run.ndjson");
  const lines: string[] = [];
  const events = simulatedRecord("delta", lines);
  const file = await RecordFile.create(path, (message) => expect.unreachable(message));
  for (const line of lines) file.write(line);
  await file.close();
  expect(await readRecordFile(path)).toEqual({ events, notices: [] });
});

test("An existing record is not overwritten", async () => {
  const path = join(folder, "old.ndjson");
  writeFileSync(path, "precious");
  await expect(RecordFile.create(path, () => {})).rejects.toThrow(UsageError);
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("A file that cannot be created is refused before the run begins", async () => {
  const options = { clock: new VirtualClock(), path: join(folder, "no", "such", "folder") };
  await expect(openRunRecord(options)).rejects.toThrow(UsageError);
});

test.skipIf(!existsSync("/dev/full"))(
  "A full disk is said once, ends the recording and nothing else",
  async () => {
    const heard: RecordEvent[] = [];
    const { record, close } = await openRunRecord({
      clock: new VirtualClock(),
      path: "/dev/full",
      listeners: [(event) => heard.push(event)],
    });
    const heartbeat = { type: "heartbeat", counter: 1, gapMs: 1, side: "source" } as const;
    const said = (type: RecordEvent["type"]) => heard.filter((event) => event.type === type).length;
    let count = 0;
    // Until the disk has said that it is full, and some more.
    for (let after = 0; after < 10; after += said("notice")) {
      record.add(heartbeat);
      count++;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(await close()).toMatch(/no longer recorded to \/dev\/full: .*ENOSPC/);
    expect([said("heartbeat"), said("notice")]).toEqual([count, 1]);
  },
);

test("A run without a file is recorded in memory", async () => {
  const { record, close } = await openRunRecord({ clock: new VirtualClock() });
  record.add({ type: "notice", message: "hello" });
  expect(record.events).toHaveLength(1);
  expect(await close()).toBeUndefined();
});

test("A file that cannot be read is a refusal with its name", async () => {
  await expect(readRecordFile(join(folder, "absent.ndjson"))).rejects.toMatchObject({
    code: "RECORD_INVALID",
    message: expect.stringContaining("absent.ndjson"),
  });
  await expect(readRecordFile(folder)).rejects.toMatchObject({ code: "RECORD_INVALID" });
});
