// How compressible are these bytes, at a glance: the order-0 entropy of a sample, so that what cannot be made
// smaller is noticed before time is spent on it. Repetitions of whole strings it does not see.

/** One 8-byte word in sixteen is looked at, but at least 16 words and at most 128. */
const SAMPLED_SHIFT: u32 = 7;
const WORDS_MIN: usize = 16;
const WORDS_MAX: usize = 128;
const WORD_BYTES: usize = 8;
const COUNTERS: usize = 256;
const BITS_PER_BYTE: f64 = 8;

/**
 * The entropy is estimated from how often two sampled bytes are equal (Rényi's of order 2, never more than
 * Shannon's): the count of such pairs grows with the histogram itself, which is then never walked through.
 */
export function sampledEntropy(address: usize, bytes: usize, scratch: usize): u32 {
  assert(bytes >= WORD_BYTES, "at least a word to sample");
  memory.fill(scratch, 0, COUNTERS * 4);
  const words = min(max(WORDS_MIN, min(bytes >> SAMPLED_SHIFT, WORDS_MAX)), bytes / WORD_BYTES);
  const stride = bytes / words;
  /** Words begin at uneven distances, so that a structure of the stride's size is not met in one place only. */
  const room = stride - WORD_BYTES;
  let jitter: u32 = 0;
  let pairs: u32 = 0;
  for (let i: usize = 0; i < words; i++) {
    jitter = jitter * 0x9e3779b9 + 0x7f4a7c15;
    const offset = <usize>((<u64>jitter * <u64>(room + 1)) >> 32);
    let word = load<u64>(address + i * stride + offset);
    for (let j = 0; j < 8; j++) {
      const counter = scratch + (<usize>(word & 0xff) << 2);
      const count = load<u32>(counter);
      pairs += count;
      store<u32>(counter, count + 1);
      word >>= 8;
    }
  }
  const samples = <u32>(words * WORD_BYTES);
  const pairsMax = (samples * (samples - 1)) >> 1;
  if (pairs == 0) return 255;
  const bits = log2Approximated(<f64>pairsMax / <f64>pairs);
  return <u32>min<f64>(255, (bits * 255) / BITS_PER_BYTE);
}

/** Of a number >= 1, up to 0.09 too low: exponent, and the mantissa taken for its own logarithm. */
@inline
function log2Approximated(value: f64): f64 {
  const bits = reinterpret<u64>(value);
  return <f64>(bits - 0x3ff0000000000000) * (1.0 / 4503599627370496.0);
}
