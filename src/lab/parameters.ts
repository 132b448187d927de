// Reads a scenario's parameters: numbers within limits, and words out of a list. Whoever typed them reads the errors.

import { UsageError } from "../base/errors.ts";
import type { ScenarioParameters } from "./model.ts";

/** @throws UsageError when it is missing, no number, or outside of `min` to `max` */
export function numberOf(
  parameters: ScenarioParameters,
  name: string,
  { min = 0, max = Number.MAX_SAFE_INTEGER }: { readonly min?: number; readonly max?: number } = {},
): number {
  const value = parameters[name];
  if (typeof value !== "number" || !(value >= min && value <= max)) {
    const limits = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new UsageError(`${name} must be a number ${limits}, not ${JSON.stringify(value)}`);
  }
  return value;
}

/** @throws UsageError when it is none of `choices` */
export function wordOf<Word extends string>(
  parameters: ScenarioParameters,
  name: string,
  choices: readonly Word[],
): Word {
  const value = parameters[name];
  const found = choices.find((choice) => choice === value);
  if (found === undefined) {
    throw new UsageError(`${name} must be one of ${choices.join(", ")}, not ${JSON.stringify(value)}`);
  }
  return found;
}
