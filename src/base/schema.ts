// The schemas that everything is checked by which comes from elsewhere, and what is said of a value that does not fit.
// All that the project uses of valibot is had from here: where valibot takes what no JSON has, or what nobody means (an
// infinite number, an array for an object), these are stricter.

import * as v from "valibot";

export {
  array,
  boolean,
  check,
  type GenericSchema,
  getMetadata,
  gtValue,
  type InferInput,
  type InferOutput,
  literal,
  maxCodePoints,
  maxLength,
  maxValue,
  metadata,
  minLength,
  minValue,
  optional,
  picklist,
  pipe,
  rawTransform,
  regex,
  strictTuple,
  string,
  union,
  unknown,
} from "valibot";

/** What an object has, by key. */
export type Shape = Record<string, v.GenericSchema>;
type Run = v.GenericSchema["~run"];

/** Neither NaN nor infinite: JSON has none, and nothing that is counted or measured is. */
export function number(): v.NumberSchema<undefined> {
  return refusing(v.number(), (value) => !Number.isFinite(value));
}

/** A whole number that can be told from its neighbours. */
export function integer(): v.SchemaWithPipe<
  readonly [v.NumberSchema<undefined>, v.SafeIntegerAction<number, undefined>]
> {
  return v.pipe(number(), v.safeInteger());
}

/** An object; keys that the shape does not have are left out. */
export function object<const Entries extends Shape>(entries: Entries): v.ObjectSchema<Entries, undefined> {
  return refusing(v.object(entries), Array.isArray);
}

/** An object that has no other keys: each one is told of, where valibot stops at the first. */
export function strictObject<const Entries extends Shape>(
  entries: Entries,
): v.StrictObjectSchema<Entries, undefined> {
  const schema = refusing(v.strictObject(entries), Array.isArray);
  const isUnknown = (key: string) => !Object.hasOwn(entries, key);
  return ranBy(schema, (ownRun) => (dataset, config) => {
    const input = dataset.value;
    const checked = ownRun(dataset, config);
    if (config.abortEarly || !isObject(input)) return checked;
    for (const key of Object.keys(input).filter(isUnknown).slice(1)) {
      const place = { type: "object", origin: "key", input, key, value: input[key] } as const;
      v._addIssue(schema, "key", checked, config, { expected: "never", path: [place] });
    }
    return checked;
  });
}

/** An object with any keys. `__proto__`, `prototype` and `constructor` are left out: a copy has none, or others. */
export function record<Value extends v.GenericSchema>(
  value: Value,
): v.RecordSchema<v.StringSchema<undefined>, Value, undefined> {
  return refusing(v.record(v.string(), value), Array.isArray);
}

/** One of several objects: the one that has this literal under `tag`. However many there are, one is looked at. */
export function variant<const Tag extends string, const Options extends v.VariantOptions<Tag>>(
  tag: Tag,
  options: Options,
): v.VariantSchema<Tag, Options, undefined> {
  const schema = v.variant(tag, options);
  const byLiteral = new Map<unknown, v.GenericSchema>();
  for (const option of options) {
    const { [tag]: literal } = (option as unknown as v.ObjectSchema<Shape, undefined>).entries;
    byLiteral.set((literal as v.LiteralSchema<string, undefined>).literal, option);
  }
  const found = ranBy(schema, (ownRun) => (dataset, config) => {
    const { value } = dataset;
    const option = isObject(value) ? byLiteral.get(value[tag]) : undefined;
    return option === undefined ? ownRun(dataset, config) : option["~run"](dataset, config);
  });
  return refusing(found, Array.isArray);
}

/** `schema`, to which some values are nothing that it would take otherwise. */
function refusing<Schema extends v.GenericSchema>(
  schema: Schema,
  isRefused: (value: unknown) => boolean,
): Schema {
  return ranBy(schema, (ownRun) => (dataset, config) => {
    if (!isRefused(dataset.value)) return ownRun(dataset, config);
    v._addIssue(schema, "type", dataset, config);
    return dataset as unknown as ReturnType<Run>;
  });
}

/** `schema`, which checks a value by what `wrap` makes of the way in which it has done so. */
function ranBy<Schema extends v.GenericSchema>(schema: Schema, wrap: (ownRun: Run) => Run): Schema {
  return Object.assign(schema, { "~run": wrap(schema["~run"].bind(schema)) });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Where in the value, and what is wrong there. */
export interface Mistake {
  readonly path: readonly string[];
  readonly text: string;
}

/** `value` is what the schema made of it. */
export type Checked<Value> =
  | { readonly value: Value; readonly mistake?: undefined }
  | { readonly value?: undefined; readonly mistake: string };

/** Its message is the mistake. */
export class SchemaError extends Error {}

/** The first mistake is enough: "pages.rawPages: expected at least 0". */
export function checked<Value>(schema: v.GenericSchema<unknown, Value>, value: unknown): Checked<Value> {
  const { success, output, issues } = v.safeParse(schema, value, { message: textOf, abortEarly: true });
  if (success) return { value: output };
  const { path, text } = mistakeOf(issues[0]);
  return { mistake: path.length === 0 ? text : `${path.join(".")}: ${text}` };
}

/** The same. @throws SchemaError */
export function parsed<Value>(schema: v.GenericSchema<unknown, Value>, value: unknown): Value {
  const result = checked(schema, value);
  if (result.mistake !== undefined) throw new SchemaError(result.mistake);
  return result.value;
}

/** All mistakes are looked for. */
export function checkedWhole<Value>(
  schema: v.GenericSchema<unknown, Value>,
  value: unknown,
): { value: Value; mistakes?: undefined } | { value?: undefined; mistakes: readonly Mistake[] } {
  const { success, output, issues } = v.safeParse(schema, value, { message: textOf });
  return success ? { value: output } : { mistakes: issues.map(mistakeOf) };
}

function mistakeOf({ path, message }: v.BaseIssue<unknown>): Mistake {
  return { path: path?.map(({ key }) => String(key)) ?? [], text: message };
}

/** Nothing of a text that was received: it may be hostile, secret or long. */
function textOf(issue: v.BaseIssue<unknown>): string {
  const { kind, type, input, requirement } = issue;
  if (kind === "schema") return typeText(issue);
  const things = typeof input === "string" ? "characters" : "items";
  switch (type) {
    case "safe_integer":
      return `expected integer${Number.isInteger(input) ? ` of at most ${Number.MAX_SAFE_INTEGER} either way` : ""}`;
    case "min_value":
      return `expected at least ${requirement}`;
    case "gt_value":
      return `expected more than ${requirement}`;
    case "max_value":
      return `expected at most ${requirement}`;
    case "min_length":
      return `expected at least ${requirement} ${things}`;
    case "max_length":
    case "max_code_points":
      return `expected at most ${requirement} ${things}`;
    case "regex":
      return `expected text like ${requirement}`;
    default:
      return `not valid (${type})`;
  }
}

function typeText({ type, input, path, ...issue }: v.BaseIssue<unknown>): string {
  const expected = issue.expected ?? "";
  if (expected === "never")
    return type === "strict_object" ? "there is no such key" : "nothing is expected there";
  if (path?.at(-1)?.origin === "key") return "missing";
  if (type === "literal") return `expected ${expected}`;
  if (type === "union") return "is none of what may be there";
  // Of a picklist, or of what tells objects apart: ("one" | "other").
  if (type === "picklist" || (type === "variant" && path !== undefined))
    return `expected one of ${expected.replace(/^\((.*)\)$/, "$1").replaceAll(" | ", ", ")}`;
  return `expected ${expected.toLowerCase()}, received ${nameOf(input)}`;
}

function nameOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : typeof value;
}
