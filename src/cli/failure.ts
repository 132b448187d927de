// A command that has failed, in words and as an exit code.

import { DeltaveeError, type ErrorCode, isGivenUp, toError, type VmWhere } from "../base/errors.ts";

/** What every command ends with, and what that means: the man page and docs/errors.md are held to this. */
export const EXIT_STATUSES: readonly (readonly [code: number, meaning: string])[] = [
  [0, "done: the VM has moved (or there was nothing more to do)"],
  [1, "failed; the message says why and where the VM is. Of doctor: a problem was found"],
  [2, "wrong usage; nothing was touched"],
  [3, "given up since a promise could not be kept; the VM runs at the source"],
  [4, "a person must decide where the guest is to run (status, recover); nothing was done"],
  [5, "refused: what was asked of recover contradicts what is known; nothing was done"],
  [130, "cancelled by the operator; the VM runs at the source"],
];

export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
const EXIT_GIVEN_UP = 3;
/** Some migration needs a person. */
export const EXIT_DECIDE = 4;
/** Those with an exit code of their own. */
const EXIT_CODES: Readonly<Partial<Record<ErrorCode, number>>> = {
  USAGE: EXIT_USAGE,
  CONFIG_INVALID: EXIT_USAGE,
  DECISION_NEEDED: EXIT_DECIDE,
  RECOVERY_REFUSED: 5,
  CANCELLED: 130,
};

/** What a person has to do where Deltavee must not decide: two running copies would be worse than none. */
const VM_ADVICE: Readonly<Partial<Record<VmWhere, string>>> = {
  unknown:
    "It may run at the destination, and Deltavee does not resume it at the source. Look at both (QMP " +
    "query-status), the destination first; only if it does not run there let it continue at the source (deltavee " +
    "recover --resume-here, or QMP cont).",
  "paused on destination":
    "It is complete there. Make sure that it does not run at the source, then let it continue (deltavee recover " +
    "--resume-here, or QMP cont).",
};

/** The same, of a source that had not given it away. */
const NOT_GIVEN_AWAY =
  "It was not given away, and does not run at the destination. It is with its QEMU at the source, which does not answer. " +
  "If that has ended, the guest has ended with it, unless the destination keeps a complete copy, paused (deltavee status " +
  "on both hosts).";

/** Where the error itself says more than where the VM is. */
const ERROR_ADVICE: Readonly<Partial<Record<ErrorCode, string | undefined>>> = {
  // A finding of recover has told what to do already.
  DECISION_NEEDED: undefined,
  POSTCOPY_INTERRUPTED:
    "Let the two QEMUs go on with each other: deltavee recover --listen ADDRESS:PORT at the destination, then deltavee " +
    "recover --to ADDRESS:PORT at the source (docs/decisions/0014-postcopy.md).",
};

/** Says what went wrong, why, and where the VM is. */
export function failureText(error: Error): string {
  const lines = [`deltavee: ${error instanceof DeltaveeError ? `${error.code}: ` : ""}${error.message}`];
  for (
    let cause = error.cause;
    cause !== undefined;
    cause = cause instanceof Error ? cause.cause : undefined
  ) {
    lines.push(`  because: ${toError(cause).message}`);
  }
  if (!(error instanceof DeltaveeError)) {
    if (error.stack !== undefined) lines.push(error.stack);
  } else if (error.vm !== undefined) {
    lines.push(`  the VM is: ${error.vm}`);
    const advice = error.code in ERROR_ADVICE ? ERROR_ADVICE[error.code] : vmAdvice(error.vm, error.phase);
    if (advice !== undefined) lines.push(`  ${advice}`);
  }
  return lines.join("\n");
}

function vmAdvice(vm: VmWhere, phase: string | undefined): string | undefined {
  const isKept = vm === "unknown" && phase !== undefined && phase !== "committed";
  return isKept ? NOT_GIVEN_AWAY : VM_ADVICE[vm];
}

export function exitCodeOf(error: Error): number {
  if (!(error instanceof DeltaveeError)) return EXIT_FAILED;
  return EXIT_CODES[error.code] ?? (isGivenUp(error) ? EXIT_GIVEN_UP : EXIT_FAILED);
}
