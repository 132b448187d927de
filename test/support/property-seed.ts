// Property tests draw their cases from one seed, so that a test fails for what was changed and not for what was drawn.
// PROPERTY_SEED=N: another one; PROPERTY_SEED=random: another one each time, for what nobody has drawn yet. fast-check
// prints the seed of what failed.

import fc from "fast-check";

const asked = process.env.PROPERTY_SEED ?? "1";
if (asked !== "random") {
  const seed = Number(asked);
  if (!Number.isSafeInteger(seed)) throw new Error(`PROPERTY_SEED: neither a number nor "random": ${asked}`);
  fc.configureGlobal({ seed });
}
