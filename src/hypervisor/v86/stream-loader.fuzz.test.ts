// Any bytes: a loaded guest, or a typed error. No other error, no write outside of RAM, no device state that the
// stream did not have. FUZZ_RUNS sets how many; fast-check prints the seed of a failure.

import { expect, test } from "vitest";
import { fuzz, fuzzRuns, must, outcomeOf, pieceBytes } from "../../../test/support/fuzzing.ts";
import { END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import { DeltaveeError } from "../../base/errors.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { StreamLoader } from "./stream-loader.ts";

const runs = fuzzRuns(2000);
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

/** A page is most of it, and there is nothing wrong with any page. */
const PLACES = [
  40,
  VALID.indexOf(Buffer.alloc(8, 9)) - 10,
  VALID.indexOf(Buffer.alloc(8, 9)) + PAGE_BYTES + 20,
];
const guard = Buffer.alloc(GUARD_BYTES, GUARD);
const all = Buffer.alloc(GUARD_BYTES + PAGES * PAGE_BYTES + GUARD_BYTES);

/** What was wrong with it; undefined: nothing. */
function loadGuarded(bytes: Uint8Array, chunkBytes: number): string | undefined {
  all.fill(GUARD);
  const memory = all.subarray(GUARD_BYTES, -GUARD_BYTES);
  const loader = new StreamLoader(() => memory);
  let refusal: string | undefined;
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) loader.push(bytes.subarray(at, at + chunkBytes));
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    must(["STREAM_CORRUPT", "XBZRLE_CORRUPT"].includes(thrown.code), "it is refused as a stream");
    refusal = thrown.message;
  }
  must(guard.equals(all.subarray(0, GUARD_BYTES)), "nothing is written before RAM");
  must(guard.equals(all.subarray(-GUARD_BYTES)), "nothing is written behind RAM");
  must((loader.loadedState?.length ?? 0) <= bytes.length, "there is no more state than has come");
  return refusal;
}

test("a damaged stream, and any bytes, are loaded or refused", () => {
  let [loaded, refused] = [0, 0];
  // Cut off, too: what follows a good beginning may be anything.
  const ends = [VALID.length, VALID.length - 30, PLACES[2]!, PLACES[1]! + 20, 40, 20, 8];
  const seeds = ends.map((end) => VALID.subarray(0, end));
  const places = ends.map((end) => [...PLACES.filter((place) => place < end), end]);
  fuzz("v86 stream", { seeds, places, runs, randomBytesMax: 300 }, (bytes, random) => {
    const refusal = loadGuarded(bytes, pieceBytes(random, 10000));
    if (refusal === undefined) loaded++;
    else refused++;
    return refusal === undefined ? "loaded" : outcomeOf(refusal);
  });
  expect(loaded).toBeGreaterThan(runs / 50);
  expect(refused).toBeGreaterThan(runs / 10);
});
