// ReturnLog against the whole return path as one array.

import fc from "fast-check";
import { expect, test } from "vitest";
import { RETURN_BYTES_MAX } from "../../wire/frame.ts";
import { ReturnLog } from "./return-log.ts";

test("whatever was appended and not released is given again, from wherever the source is", () => {
  const step = fc.record({
    append: fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 3 * RETURN_BYTES_MAX })),
    releaseRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    fromRatio: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const log = new ReturnLog();
      let all = Buffer.alloc(0);
      let released = 0;
      for (const { append, releaseRatio, fromRatio } of steps) {
        const bytes = Buffer.alloc(append, all.length % 251);
        all = Buffer.concat([all, bytes]);
        log.append(bytes);
        bytes.fill(0xee);
        released += Math.floor(releaseRatio * (all.length - released));
        expect(log.release(released)).toBe(true);
        expect(log.retainedBytes).toBe(all.length - released);
        const from = released + Math.floor(fromRatio * (all.length - released));
        const pieces = log.from(from);
        expect(pieces.every((piece) => piece.length <= RETURN_BYTES_MAX)).toBe(true);
        expect(Buffer.compare(Buffer.concat(pieces), all.subarray(from))).toBe(0);
      }
    }),
  );
});

test("a source cannot have more than there was, nor less than it has said before", () => {
  const log = new ReturnLog();
  log.append(new Uint8Array(10));
  expect(log.release(11)).toBe(false);
  expect(log.release(4)).toBe(true);
  expect(log.release(3)).toBe(false);
  expect(log.retainedBytes).toBe(6);
});
