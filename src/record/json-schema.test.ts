import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../test/support/arbitrary-record.ts";
import { writeRecord } from "../../test/support/write-record.ts";
import { checked } from "../base/schema.ts";
import { jsonSchemaOf } from "../base/schema-json.ts";
import { jsonSchemaChecker } from "./json-schema.ts";
import { recordEventSchema } from "./schema.ts";

type Json = Record<string, unknown>;

const schema = jsonSchemaOf(recordEventSchema) as { oneOf: unknown[] };
const checker = jsonSchemaChecker(schema);

/** One place in it, at any depth, has another value, is missing, or is new. */
function damaged(event: Json, at: number, value: unknown): Json {
  const copy = structuredClone(event);
  const places: [holder: Json, name: string][] = [];
  const look = (holder: Json) => {
    for (const [name, each] of Object.entries(holder)) {
      places.push([holder, name]);
      if (typeof each === "object" && each !== null) look(each as Json);
    }
    places.push([holder, "new"]);
  };
  look(copy);
  const [holder, name] = places[at % places.length]!;
  // What comes out of JSON has no holes.
  if (value === undefined && Array.isArray(holder)) holder.splice(Number(name), 1);
  else if (value === undefined) delete holder[name];
  else holder[name] = value;
  return copy;
}

test("An event is taken, and taken as the same, exactly where the record takes it", () => {
  const anything = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(undefined, -1, Number.POSITIVE_INFINITY, "source", "0", [], {}, null, [{}]),
  );
  const taken = { same: 0, refused: 0 };
  fc.assert(
    fc.property(arbitraryEntries, fc.nat(), anything, (entries, at, value) => {
      for (const line of writeRecord(entries).text.trim().split("\n")) {
        const other = damaged(JSON.parse(line), at, value);
        const byRecord = checked(recordEventSchema, other);
        const ours = checker.types.has(other.type) ? checker.check(other) : { issue: "type" };
        if (byRecord.mistake === undefined) {
          expect(ours).toStrictEqual(byRecord.value);
          taken.same++;
        } else {
          expect(ours).toHaveProperty("issue");
          taken.refused++;
        }
      }
    }),
    { numRuns: 300 },
  );
  expect(Math.min(taken.same, taken.refused)).toBeGreaterThan(100);
});

test("What is wrong is named with its place", () => {
  expect(checker.check({ type: "phase", atMs: 1, phase: "gone" })).toEqual({
    issue: expect.stringMatching(/^phase: expected one of setup, iterating/),
  });
  expect(checker.check({ type: "heartbeat", atMs: 1, counter: 1, gapMs: -1, side: "source" })).toEqual({
    issue: "gapMs: expected at least 0",
  });
  const guest = (pageBytes: number, classes: number) => ({
    ...{ pages: 1, zeroPages: 0, rewrittenPagesPerSecond: 0, sampledPages: 0, sampledMs: 0, pageBytes },
    ...{ codedShare: { fast: 1, strong: 1 }, cpuMsPerPage: { delta: 0, fast: 0, strong: 0 } },
    rateClasses: Array.from({ length: classes }, () => ({ pages: 1, changesPerSecond: 0, deltaSizes: [] })),
  });
  const none = { low: 0, expected: 0, high: 0 };
  const forecast = (pageBytes: number, classes: number) =>
    checker.check({
      ...{ type: "forecast", atMs: 1, method: "tunnel", converges: "yes", reason: "calm" },
      ...{ totalMs: none, downtimeMs: none, wireBytes: none, linkBytesPerSecond: 1, roundTripMs: 0 },
      basis: { guest: guest(pageBytes, classes), lossShare: 0, downtimeMsMax: 300 },
    });
  expect(forecast(4096, 64)).toMatchObject({ basis: { guest: { pageBytes: 4096 } } });
  expect(forecast(0.5, 1)).toEqual({ issue: "basis.guest.pageBytes: expected integer" });
  expect(forecast(0, 1)).toEqual({ issue: "basis.guest.pageBytes: expected more than 0" });
  expect(forecast(2 ** 60, 1)).toEqual({
    issue: expect.stringContaining("basis.guest.pageBytes: expected at most"),
  });
  expect(forecast(4096, 65)).toEqual({ issue: "basis.guest.rateClasses: expected at most 64 of them" });
  expect(checker.check({ type: "notice", atMs: 1 })).toEqual({ issue: "message: missing" });
});

test("A schema that says what is not understood is refused, not half obeyed", () => {
  expect(() => jsonSchemaChecker({ oneOf: [{ type: "string", pattern: "^a" }] })).toThrow(/"pattern"/);
});
