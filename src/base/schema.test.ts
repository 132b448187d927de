import { expect, test } from "vitest";
import * as v from "./schema.ts";
import { jsonSchemaOf } from "./schema-json.ts";

const mistake = (schema: v.GenericSchema, value: unknown) => v.checked(schema, value).mistake;
/** Own keys of any name, as JSON.parse makes them. */
const json = (text: string): unknown => JSON.parse(text);

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, "1", null, undefined, true, []])(
  "%s is no number",
  (value) => {
    expect(mistake(v.number(), value)).toMatch(/^expected number, received /);
    expect(mistake(v.integer(), value)).toMatch(/^expected number, received /);
  },
);

test("Integers are those that a number can tell apart", () => {
  for (const value of [0, -0, 1, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) {
    expect(v.checked(v.integer(), value)).toStrictEqual({ value });
  }
  expect(mistake(v.integer(), 0.5)).toBe("expected integer");
  expect(mistake(v.integer(), 2 ** 53)).toBe(`expected integer of at most ${2 ** 53 - 1} either way`);
});

test("No array is an object, be all its keys optional", () => {
  const option = v.object({ type: v.literal("a") });
  const schemas = [v.object({}), v.strictObject({}), v.record(v.number()), v.variant("type", [option])];
  for (const schema of schemas) {
    for (const value of [[], [1], null, undefined, "a", 1]) {
      expect(mistake(schema, value)).toMatch(
        /^expected object, received (array|null|undefined|string|number)$/,
      );
    }
  }
});

test("Unknown keys are left out, or each is told of, also where every object inherits what is called so", () => {
  const shape = { a: v.number(), inner: v.optional(v.strictObject({ b: v.number() })) };
  const value = json('{"a":1,"__proto__":{"a":2},"constructor":3,"toString":4,"new":5}');
  expect(v.checked(v.object(shape), value)).toStrictEqual({ value: { a: 1 } });
  const { mistakes } = v.checkedWhole(v.strictObject(shape), value);
  expect(mistakes?.map(({ path }) => path)).toEqual([["__proto__"], ["constructor"], ["toString"], ["new"]]);
  expect(mistake(v.strictObject(shape), { a: 1, inner: { b: 1, c: 2 } })).toBe(
    "inner.c: there is no such key",
  );
});

test("A record has whatever keys, but for those that could be mistaken for what objects have", () => {
  const value = json('{"__proto__":"x","constructor":1,"prototype":2,"toString":3,"":4}');
  expect(v.checked(v.record(v.number()), value)).toStrictEqual({ value: { toString: 3, "": 4 } });
  expect(mistake(v.record(v.number()), json('{"toString":"x"}'))).toBe(
    "toString: expected number, received string",
  );
});

test("What is optional may be missing or undefined, and stays so; a default takes the place of both", () => {
  const schema = v.object({ a: v.optional(v.number()), b: v.optional(v.number(), 3) });
  expect(v.checked(schema, {})).toStrictEqual({ value: { b: 3 } });
  expect(v.checked(schema, { a: undefined, b: undefined })).toStrictEqual({ value: { a: undefined, b: 3 } });
  expect(mistake(schema, { a: null })).toBe("a: expected number, received null");
});

test("Of several objects the one with the literal is looked at", () => {
  const schema = v.variant("type", [
    v.object({ type: v.literal("a"), x: v.number() }),
    v.object({ type: v.literal("b"), y: v.string() }),
  ]);
  expect(v.checked(schema, { type: "b", x: 1, y: "y" })).toStrictEqual({ value: { type: "b", y: "y" } });
  expect(mistake(schema, { type: "a" })).toBe("x: missing");
  for (const value of [{}, { type: "c" }, json('{"type":"__proto__"}')]) {
    expect(mistake(schema, value)).toBe('type: expected one of "a", "b"');
  }
});

test("Every mistake is named with its place, and nothing of a text that was received", () => {
  const secret = "\u001b[2J secret";
  const schema = v.object({
    kind: v.picklist(["one", "other"]),
    version: v.literal(1),
    id: v.pipe(v.string(), v.regex(/^[0-9]$/)),
    name: v.pipe(v.string(), v.minLength(1), v.maxLength(4)),
    points: v.pipe(v.string(), v.maxCodePoints(2)),
    list: v.pipe(v.array(v.pipe(v.integer(), v.minValue(1), v.maxValue(9))), v.maxLength(2)),
    many: v.pipe(v.array(v.number()), v.minLength(1), v.maxLength(2)),
    above: v.pipe(v.number(), v.gtValue(0)),
    pair: v.strictTuple([v.boolean()]),
    either: v.union([v.object({ a: v.number() }), v.string()]),
    custom: v.pipe(
      v.string(),
      v.check(() => false, "must be otherwise"),
    ),
    gone: v.string(),
  });
  const { mistakes } = v.checkedWhole(schema, {
    ...{ kind: secret, version: secret, id: secret, name: secret, points: secret, list: [0, 10, secret] },
    ...{ many: [1, 2, 3], above: 0, pair: [true, secret], either: { a: secret }, custom: secret },
  });
  expect(mistakes?.map(({ path, text }) => `${path.join(".")}: ${text}`)).toEqual([
    'kind: expected one of "one", "other"',
    "version: expected 1",
    "id: expected text like /^[0-9]$/",
    "name: expected at most 4 characters",
    "points: expected at most 2 characters",
    "list.0: expected at least 1",
    "list.1: expected at most 9",
    "list.2: expected number, received string",
    "many: expected at most 2 items",
    "above: expected more than 0",
    "pair.1: nothing is expected there",
    "either: is none of what may be there",
    "custom: must be otherwise",
    "gone: missing",
  ]);
  expect(mistake(schema, null)).toBe("expected object, received null");
  expect(() => v.parsed(schema, { kind: "one", version: 2 })).toThrow(
    new v.SchemaError("version: expected 1"),
  );
});

test("Lengths are of UTF-16 units, or of code points where that is said", () => {
  const smile = "\u{1f600}";
  expect(mistake(v.pipe(v.string(), v.maxLength(1)), smile)).toBe("expected at most 1 characters");
  expect(v.checked(v.pipe(v.string(), v.maxCodePoints(1)), smile)).toEqual({ value: smile });
});

test("A JSON Schema says the type of everything", () => {
  const schema = v.object({
    kind: v.literal("a"),
    version: v.literal(1),
    either: v.optional(v.union([v.number(), v.string()])),
    forms: v.optional(v.union([v.object({}), v.string()])),
  });
  expect(jsonSchemaOf(schema).properties).toEqual({
    kind: { type: "string", const: "a" },
    version: { type: "number", const: 1 },
    either: { type: ["number", "string"] },
    forms: { anyOf: [{ type: "object", properties: {}, required: [] }, { type: "string" }] },
  });
});
