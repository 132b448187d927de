// What is done when a migration stalls: every policy in one table, by which the command line, its help, the engine
// and the record go. What a policy does is in convergence.ts.

/** The first one is the default: it never costs the guest more than was agreed, and it loses nothing. */
export const STALL_POLICIES = {
  wait: "go on iterating, and say so",
  switchover: "stop the guest at the next best moment, whatever the goal for its downtime",
  throttle: "slow the guest's vCPUs down step by step, until the migration is over",
  postcopy: "let the guest run at the destination and fetch what is missing (risk: see below)",
  abort: "give up: the guest goes on at the source",
} as const;

export type StallPolicy = keyof typeof STALL_POLICIES;

export const STALL_POLICY_DEFAULT: StallPolicy = "wait";

export function isStallPolicy(name: string): name is StallPolicy {
  return Object.hasOwn(STALL_POLICIES, name);
}
