// Every way to move a VM that is compared, in the order of tables.

import { UsageError } from "../../base/errors.ts";
import { DELTAVEE_METHODS } from "./deltavee.ts";
import type { Method } from "./method.ts";
import { STOCK_METHODS } from "./stock.ts";

export const METHODS: readonly Method[] = [...STOCK_METHODS, ...DELTAVEE_METHODS];

/** @throws UsageError */
export function methodNamed(name: string): Method {
  const method = METHODS.find((candidate) => candidate.name === name);
  if (method !== undefined) return method;
  throw new UsageError(
    `There is no method "${name}" (${METHODS.map((candidate) => candidate.name).join(", ")})`,
  );
}
