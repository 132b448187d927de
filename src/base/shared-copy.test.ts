// What is copied is the same however source and target lie, and nothing beside it is touched.

import fc from "fast-check";
import { expect, test } from "vitest";
import { copyToShared } from "./shared-copy.ts";

test("bytes are copied as they are, wherever both lie, and nothing beside them", () => {
  const at = fc.integer({ min: 0, max: 15 });
  const length = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 32_760, max: 70_000 }));
  fc.assert(
    fc.property(at, at, length, (from, to, bytes) => {
      const source = Uint8Array.from({ length: from + bytes }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
      const target = new Uint8Array(new SharedArrayBuffer(to + bytes + 16)).fill(0xee);
      copyToShared(target.subarray(to), source.subarray(from));
      const expected = Buffer.alloc(target.length, 0xee);
      expected.set(source.subarray(from), to);
      expect(Buffer.compare(Buffer.from(target), expected)).toBe(0);
    }),
  );
});
