// Checks the events of a record by a JSON Schema, made of schema.ts: for pages in a browser, which load no
// library. It takes the few keywords that our schema comes to and refuses every other one, so that nothing in a later
// schema can go unchecked; a property test holds it to what schema.ts takes.

import type { EventChecker } from "./line-reader.ts";
import type { RecordEvent } from "./schema.ts";

/** The value as it is taken: with defaults, without what is unknown. @throws Mismatch */
type Check = (value: unknown, path: string) => unknown;

class Mismatch extends Error {}

const KEYWORDS: ReadonlySet<string> = new Set([
  ...["type", "const", "enum", "minimum", "exclusiveMinimum", "maximum", "items", "maxItems"],
  ...["properties", "required", "propertyNames", "additionalProperties", "default"],
]);

interface Schema {
  readonly type: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly items?: Schema;
  readonly maxItems?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly propertyNames?: Schema;
  readonly additionalProperties?: Schema;
  readonly default?: unknown;
}

/** `schema`: the whole, one alternative for each type of event. @throws Error of one that it does not understand */
export function jsonSchemaChecker(schema: { readonly oneOf: readonly unknown[] }): EventChecker {
  const checks = new Map<unknown, Check>();
  for (const alternative of schema.oneOf as readonly Schema[]) {
    checks.set(alternative.properties?.type?.const, checkOf(alternative));
  }
  return {
    types: new Set(checks.keys()),
    check(value) {
      try {
        return checks.get(value.type)?.(value, "") as RecordEvent;
      } catch (thrown) {
        if (thrown instanceof Mismatch) return { issue: thrown.message };
        throw thrown;
      }
    },
  };
}

function checkOf(schema: Schema): Check {
  const unknown = Object.keys(schema).find((keyword) => !KEYWORDS.has(keyword));
  if (unknown !== undefined) throw new Error(`The schema says "${unknown}", which is not understood`);
  const isOfType = typeCheck(schema);
  const { properties, additionalProperties, items } = schema;
  const inner =
    properties !== undefined
      ? objectCheck(properties, new Set(schema.required))
      : additionalProperties !== undefined
        ? mapCheck(additionalProperties)
        : items !== undefined
          ? arrayCheck(items, schema.maxItems)
          : (value: unknown) => value;
  return (value, path) => {
    isOfType(value, path);
    return inner(value, path);
  };
}

function typeCheck(schema: Schema): Check {
  const types = typeof schema.type === "string" ? [schema.type] : schema.type;
  const { const: constant, enum: choices, minimum, exclusiveMinimum, maximum } = schema;
  return (value, path) => {
    const isOfType = types.includes(typeOf(value)) || (types.includes("integer") && Number.isInteger(value));
    if (!isOfType) throw mismatch(path, `expected ${types.join(" or ")}`);
    if (constant !== undefined && value !== constant) throw mismatch(path, `expected ${constant}`);
    if (choices !== undefined && !choices.includes(value)) {
      throw mismatch(path, `expected one of ${choices.join(", ")}`);
    }
    if (minimum !== undefined && Number(value) < minimum)
      throw mismatch(path, `expected at least ${minimum}`);
    if (exclusiveMinimum !== undefined && Number(value) <= exclusiveMinimum)
      throw mismatch(path, `expected more than ${exclusiveMinimum}`);
    if (maximum !== undefined && Number(value) > maximum) throw mismatch(path, `expected at most ${maximum}`);
    return value;
  };
}

/** As JSON Schema has it; a number too large to be one has none. */
function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number" && !Number.isFinite(value)) return "none";
  return typeof value;
}

function objectCheck(properties: Readonly<Record<string, Schema>>, required: ReadonlySet<string>): Check {
  const checks = Object.entries(properties).map(([name, schema]) => ({
    name,
    check: checkOf(schema),
    standard: schema.default,
    isRequired: required.has(name),
  }));
  return (value, path) => {
    const taken: Record<string, unknown> = {};
    for (const { name, check, standard, isRequired } of checks) {
      const has = Object.hasOwn(value as object, name);
      if (has) taken[name] = check((value as Record<string, unknown>)[name], below(path, name));
      else if (isRequired) throw mismatch(below(path, name), "missing");
      else if (standard !== undefined) taken[name] = standard;
    }
    return taken;
  };
}

function mapCheck(schema: Schema): Check {
  const check = checkOf(schema);
  return (value, path) => {
    const entries = Object.entries(value as object).filter(([name]) => name !== "__proto__");
    return Object.fromEntries(entries.map(([name, each]) => [name, check(each, below(path, name))]));
  };
}

function arrayCheck(schema: Schema, itemsMax = Number.POSITIVE_INFINITY): Check {
  const check = checkOf(schema);
  return (value, path) => {
    const items = value as unknown[];
    if (items.length > itemsMax) throw mismatch(path, `expected at most ${itemsMax} of them`);
    return items.map((each, index) => check(each, below(path, String(index))));
  };
}

function below(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function mismatch(path: string, expected: string): Mismatch {
  return new Mismatch(`${path}: ${expected}`);
}
