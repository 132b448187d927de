// JSON Schema of a schema, for editors and browsers: of what is written, not of what is made of it when it is read.

import { type JsonSchema, type OverrideSchemaContext, toJsonSchema } from "@valibot/to-json-schema";
import type { GenericSchema } from "./schema.ts";

export function jsonSchemaOf(schema: GenericSchema): JsonSchema {
  return toJsonSchema(schema, { target: "draft-2020-12", typeMode: "input", overrideSchema: withType });
}

/** Everything says its type: editors tell more of it then, and a checker (record/json-schema.ts) needs to know less. */
function withType({ jsonSchema }: OverrideSchemaContext): JsonSchema | undefined {
  const { const: literal, anyOf } = jsonSchema;
  if (typeof literal === "string" || typeof literal === "number") {
    return { type: typeof literal as "string" | "number", ...jsonSchema };
  }
  // A union of plain types is one of types.
  const types = anyOf?.map((option) => (typeof option === "object" ? option.type : undefined));
  const isPlain = anyOf?.every((option) => Object.keys(option).join() === "type") ?? false;
  return isPlain ? { type: types as Extract<JsonSchema["type"], unknown[]> } : undefined;
}
