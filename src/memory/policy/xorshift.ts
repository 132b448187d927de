// xorshift32 of Marsaglia (2003): the next state from the last, neither of which is 0. A policy's choices need no
// better randomness, and must be the same again.

export function xorshift32(state: number): number {
  let x = state;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}
