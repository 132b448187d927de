// A monitor that says anything: whoever waits for it hears a typed error, or an answer, and never hangs. Over a stream in
// this process; what sockets do to it is tested elsewhere. FUZZ_RUNS sets how many.

import { Duplex } from "node:stream";
import { expect, test } from "vitest";
import {
  fuzzAsync,
  fuzzRuns,
  JSON_WORDS,
  must,
  outcomeOf,
  pieceBytes,
} from "../../../test/support/fuzzing.ts";
import { VirtualClock } from "../../base/clock.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { QmpClient } from "./qmp.ts";

const runs = fuzzRuns(1000);
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}\r\n';
const ANSWERS = [
  '{"return": {}, "id": 1}\r\n',
  '{"return": {"status": "running", "running": true}, "id": 2}\r\n',
  '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n',
  '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "MIGRATION", "data": {"status": "active"}}\r\n',
  '{"error": {"class": "GenericError", "desc": "no"}, "id": 2}\r\n',
];
const WORDS = [...JSON_WORDS, '"id": 2', '"__proto__": {}'];
/** Nothing waits for time to pass: where the monitor has said all, it hangs up. */
const options = { clock: new VirtualClock() };

/** Says it all, then hangs up; listens to nothing. Each line by itself, so that a command may be there before its answer. */
function saying(bytes: Uint8Array, pieceBytes: number): Duplex {
  let at = 0;
  return new Duplex({
    // As sockets are.
    allowHalfOpen: false,
    read() {
      const lineEnd = bytes.indexOf(0x0a, at) + 1 || bytes.length;
      const end = Math.min(at + pieceBytes, lineEnd);
      const piece = at < bytes.length ? bytes.subarray(at, end) : null;
      at = end;
      setImmediate(() => this.push(piece));
    },
    write(_chunk, _encoding, done) {
      done();
    },
  });
}

test("any bytes of a monitor are an answer or a typed error", async () => {
  let [answered, failed] = [0, 0];
  const talks = [[], [0], [1], [2, 1], [3, 1], [4], [2, 3, 1, 4]].map((lines) =>
    Buffer.from(GREETING + ANSWERS[0] + lines.map((line) => ANSWERS[line]).join("")),
  );
  // Without its greeting nothing else is read.
  const places = talks.map(({ length }) => [GREETING.length + 24, (GREETING.length + length) >> 1, length]);
  const inputs = { seeds: talks, places, runs, randomBytesMax: 300, words: WORDS };
  await fuzzAsync("qmp", inputs, async (bytes, random) => {
    try {
      const socket = saying(bytes, pieceBytes(random, 2000));
      const client = await QmpClient.over(socket, { kind: "unix", path: "qmp" }, options);
      try {
        const { running } = await client.execute("query-status");
        must(typeof running === "boolean", "an answer is of its type");
        answered++;
        return "answered";
      } finally {
        client.close();
      }
    } catch (thrown) {
      if (!(thrown instanceof DeltaveeError)) throw thrown;
      must(
        thrown.code.startsWith("QMP_") || thrown.code === "HYPERVISOR_INCOMPATIBLE",
        "it is an error of QMP",
      );
      failed++;
      return outcomeOf(thrown.message);
    }
  });
  expect(failed).toBeGreaterThan(runs / 10);
  expect(answered).toBeGreaterThan(runs / 200);
});
