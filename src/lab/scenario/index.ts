// Every scenario, in the order of tables.

import { UsageError } from "../../base/errors.ts";
import type { Scenario } from "../model.ts";

export const SCENARIOS: readonly Scenario[] = [];

/** @throws UsageError */
export function scenarioNamed(name: string): Scenario {
  const scenario = SCENARIOS.find((candidate) => candidate.name === name);
  if (scenario !== undefined) return scenario;
  throw new UsageError(
    `There is no scenario "${name}" (${SCENARIOS.map((candidate) => candidate.name).join(", ")})`,
  );
}
