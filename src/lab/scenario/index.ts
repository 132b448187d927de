// Every scenario, in the order of tables.

import type { Scenario } from "../model.ts";

export const SCENARIOS: readonly Scenario[] = [];
