// A hash of content that is as fast as memory: to find pages that may be equal, never to prove that they are.
// Not meant to withstand an adversary: whoever chooses the content can make two of the same hash.

/** 32 sums of 32 bits run side by side over stripes of 32 words: eight vectors of four. */
const STRIPE_BYTES: usize = 128;
/** Odd, with well-mixed bits (MurmurHash3 has it too). */
const MULTIPLIER: u32 = 0xcc9e2d51;
/** Sums begin at different values, so that words that change places change the hash. */
const SEED_STEP: u32 = 0x9e3779b9;
const ROTATION: i32 = 13;

/**
 * A sum takes a word by (sum ^ word) * odd, rotated: for a given word that is one-to-one in the sum and for a given
 * sum one-to-one in the word, so a single changed word always changes its sum.
 */
@inline
function absorb(sum: u32, word: u32): u32 {
  return rotl<u32>((sum ^ word) * MULTIPLIER, ROTATION);
}

export function hash32(address: usize, bytes: usize): u32 {
  const stripesEnd = address + (bytes & ~(STRIPE_BYTES - 1));
  let hash = <u32>bytes * SEED_STEP;
  if (stripesEnd > address) hash = absorbStripes(hash, address, stripesEnd);
  const end = address + bytes;
  let at = stripesEnd;
  for (; at + 4 <= end; at += 4) hash = absorb(hash, load<u32>(at));
  for (; at < end; at++) hash = absorb(hash, load<u8>(at));
  return mixed(hash);
}

/** Every bit of the result depends on every bit of the sum (the finalizer of MurmurHash3). */
@inline
function mixed(sum: u32): u32 {
  sum ^= sum >> 16;
  sum *= 0x85ebca6b;
  sum ^= sum >> 13;
  sum *= 0xc2b2ae35;
  return sum ^ (sum >> 16);
}

/** The four columns of the stripes are summed apart: at once in the lanes of vectors, or one after another. */
@inline
function absorbStripes(hash: u32, address: usize, end: usize): u32 {
  if (ASC_FEATURE_SIMD) {
    const seeds = i32x4.mul(i32x4(1, 2, 3, 4), i32x4.splat(SEED_STEP));
    const step = i32x4.splat(4 * SEED_STEP);
    let sum0 = seeds;
    let sum1 = i32x4.add(sum0, step);
    let sum2 = i32x4.add(sum1, step);
    let sum3 = i32x4.add(sum2, step);
    let sum4 = i32x4.add(sum3, step);
    let sum5 = i32x4.add(sum4, step);
    let sum6 = i32x4.add(sum5, step);
    let sum7 = i32x4.add(sum6, step);
    for (let at = address; at < end; at += STRIPE_BYTES) {
      sum0 = absorbWide(sum0, v128.load(at));
      sum1 = absorbWide(sum1, v128.load(at, 16));
      sum2 = absorbWide(sum2, v128.load(at, 32));
      sum3 = absorbWide(sum3, v128.load(at, 48));
      sum4 = absorbWide(sum4, v128.load(at, 64));
      sum5 = absorbWide(sum5, v128.load(at, 80));
      sum6 = absorbWide(sum6, v128.load(at, 96));
      sum7 = absorbWide(sum7, v128.load(at, 112));
    }
    sum0 = absorbWide(sum0, sum1);
    sum0 = absorbWide(sum0, sum2);
    sum0 = absorbWide(sum0, sum3);
    sum0 = absorbWide(sum0, sum4);
    sum0 = absorbWide(sum0, sum5);
    sum0 = absorbWide(sum0, sum6);
    sum0 = absorbWide(sum0, sum7);
    hash = absorb(hash, mixed(i32x4.extract_lane(sum0, 0)));
    hash = absorb(hash, mixed(i32x4.extract_lane(sum0, 1)));
    hash = absorb(hash, mixed(i32x4.extract_lane(sum0, 2)));
    hash = absorb(hash, mixed(i32x4.extract_lane(sum0, 3)));
    return hash;
  } else {
    for (let column: u32 = 0; column < 4; column++) {
      hash = absorb(hash, mixed(columnSum(address + column * 4, end, (column + 1) * SEED_STEP)));
    }
    return hash;
  }
}

@inline
function absorbWide(sums: v128, words: v128): v128 {
  const product = i32x4.mul(v128.xor(sums, words), i32x4.splat(MULTIPLIER));
  return v128.or(i32x4.shl(product, ROTATION), i32x4.shr_u(product, 32 - ROTATION));
}

@inline
function columnSum(address: usize, end: usize, seed: u32): u32 {
  let sum0 = seed;
  let sum1 = sum0 + 4 * SEED_STEP;
  let sum2 = sum1 + 4 * SEED_STEP;
  let sum3 = sum2 + 4 * SEED_STEP;
  let sum4 = sum3 + 4 * SEED_STEP;
  let sum5 = sum4 + 4 * SEED_STEP;
  let sum6 = sum5 + 4 * SEED_STEP;
  let sum7 = sum6 + 4 * SEED_STEP;
  for (let at = address; at < end; at += STRIPE_BYTES) {
    sum0 = absorb(sum0, load<u32>(at));
    sum1 = absorb(sum1, load<u32>(at, 16));
    sum2 = absorb(sum2, load<u32>(at, 32));
    sum3 = absorb(sum3, load<u32>(at, 48));
    sum4 = absorb(sum4, load<u32>(at, 64));
    sum5 = absorb(sum5, load<u32>(at, 80));
    sum6 = absorb(sum6, load<u32>(at, 96));
    sum7 = absorb(sum7, load<u32>(at, 112));
  }
  sum0 = absorb(sum0, sum1);
  sum0 = absorb(sum0, sum2);
  sum0 = absorb(sum0, sum3);
  sum0 = absorb(sum0, sum4);
  sum0 = absorb(sum0, sum5);
  sum0 = absorb(sum0, sum6);
  sum0 = absorb(sum0, sum7);
  return sum0;
}
