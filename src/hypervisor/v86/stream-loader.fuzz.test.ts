// Any bytes: a loaded guest, or a typed error. No other error, no write outside of RAM, no device state that the
// stream did not have. FUZZ_RUNS sets how many; fast-check prints the seed of a failure.

import fc from "fast-check";
import { expect, test } from "vitest";
import { fuzz, fuzzRuns } from "../../../test/support/fuzzing.ts";
import { END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { StreamLoader } from "./stream-loader.ts";

const numRuns = fuzzRuns(2000);
const PAGES = 4;
const GUARD_BYTES = 64;
const GUARD = 0xc3;

const VALID = new StreamBuilder()
  .header()
  .configuration("v86")
  .start(1, [{ idstr: "ram", pages: PAGES }])
  .endSection()
  .section(PART)
  .zero(0, 0)
  .page(0, 1, new Uint8Array(PAGE_BYTES).fill(9))
  .xbzrle(0, 1, Uint8Array.of(5, 2, 1, 1))
  .endSection()
  .section(END)
  .xbzrle(0, 3, Uint8Array.of(0xfe, 0x1f, 2, 7, 7))
  .endSection()
  .device("v86", Buffer.from("state"))
  .verbatim(Buffer.of(0)).bytes;

function loadGuarded(bytes: Uint8Array, chunkBytes: number): void {
  const all = new Uint8Array(GUARD_BYTES + PAGES * PAGE_BYTES + GUARD_BYTES).fill(GUARD);
  const memory = all.subarray(GUARD_BYTES, -GUARD_BYTES);
  const loader = new StreamLoader(() => memory);
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) loader.push(bytes.subarray(at, at + chunkBytes));
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(DeltaveeError);
    expect(["STREAM_CORRUPT", "XBZRLE_CORRUPT"]).toContain((thrown as DeltaveeError).code);
  }
  expect(all.subarray(0, GUARD_BYTES).every((byte) => byte === GUARD)).toBe(true);
  expect(all.subarray(-GUARD_BYTES).every((byte) => byte === GUARD)).toBe(true);
  expect(loader.loadedState?.length ?? 0).toBeLessThanOrEqual(bytes.length);
}

const chunkBytes = fc.integer({ min: 1, max: 5000 });
/** Bytes changed, by place; most of the stream is one page, so places near its ends are wanted more. */
const place = fc.oneof(
  fc.nat(60),
  fc.nat(VALID.length - 1),
  fc.integer({ min: VALID.length - 100, max: VALID.length - 1 }),
);

test("a damaged stream is loaded or refused", () => {
  const damage = fc.record({
    changes: fc.array(fc.tuple(place, fc.nat(255)), { maxLength: 5 }),
    cut: fc.option(fc.tuple(place, fc.nat(20)), { freq: 3 }),
    chunkBytes,
  });
  fuzz(
    fc.property(damage, ({ changes, cut, chunkBytes: size }) => {
      let bytes = Buffer.from(VALID);
      for (const [at, value] of changes) bytes[at] = value;
      if (cut !== null) bytes = Buffer.concat([bytes.subarray(0, cut[0]), bytes.subarray(cut[0] + cut[1])]);
      loadGuarded(bytes, size);
    }),
    { numRuns },
  );
});

test("any bytes behind a valid begin are loaded or refused", () => {
  const begin = fc.nat(VALID.length);
  fuzz(
    fc.property(begin, fc.uint8Array({ maxLength: 300 }), chunkBytes, (from, rest, size) => {
      loadGuarded(Buffer.concat([VALID.subarray(0, from), rest]), size);
    }),
    { numRuns },
  );
});
