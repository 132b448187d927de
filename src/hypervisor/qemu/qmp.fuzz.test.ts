// A monitor that says anything: whoever waits for it hears a typed error, or an answer, and never hangs. Over a real
// socket, since that is how it is read. FUZZ_RUNS sets how many.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fuzzAsync, fuzzRuns, mutated } from "../../../test/support/fuzzing.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { QmpClient } from "./qmp.ts";

const numRuns = fuzzRuns(150);
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}\r\n';
const ANSWERS = [
  '{"return": {}, "id": 1}\r\n',
  '{"return": {"status": "running", "running": true}, "id": 2}\r\n',
  '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n',
  '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "active"}}\r\n',
  '{"error": {"class": "GenericError", "desc": "no"}, "id": 2}\r\n',
];
let folder: string;
let server: Server;
let says: Uint8Array;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-qmp-"));
  server = createServer((socket) => {
    socket.on("error", () => {});
    socket.resume();
    socket.end(says);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, "qmp"), resolve));
});
afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

test("any bytes of a monitor are an answer or a typed error", async () => {
  let failed = 0;
  const talk = fc
    .array(fc.constantFrom(...ANSWERS), { maxLength: 5 })
    .map((lines) => Buffer.from(GREETING + ANSWERS[0] + lines.join("")));
  const input = fc.oneof({ weight: 4, arbitrary: mutated(talk) }, talk, fc.uint8Array({ maxLength: 300 }));
  await fuzzAsync(
    fc.asyncProperty(input, async (bytes) => {
      says = bytes;
      try {
        const client = await QmpClient.connect({ kind: "unix", path: join(folder, "qmp") });
        try {
          const { running } = await client.execute("query-status");
          expect(typeof running).toBe("boolean");
        } finally {
          client.close();
        }
      } catch (thrown) {
        if (!(thrown instanceof DeltaveeError)) throw thrown;
        expect(thrown.code).toMatch(/^QMP_/);
        failed++;
      }
    }),
    { numRuns },
  );
  expect(failed).toBeGreaterThan(numRuns / 10);
});
