// Assertions guard against our own mistakes and stay on in production: before the migration is committed a
// failed one cancels it and the guest keeps running on the source. Bad input gets a typed error instead.

/** @throws Error with code INTERNAL semantics: a bug in Deltavee, never a user's mistake. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`Assertion failed: ${message}`);
}

/** For the default branch of a switch over a closed union: the compiler proves it is never reached. */
export function assertNever(value: never, what: string): never {
  throw new Error(`Assertion failed: unexpected ${what}: ${String(value)}`);
}
