// The hash of the kernels (assembly/hash.ts), readable: what the checksum of a DATA frame is (wire/PROTOCOL.md). As
// fast as memory where it runs in WebAssembly, and any single changed word changes it; it withstands no adversary.

const STRIPE_WORDS = 32;
const STRIPE_BYTES = 4 * STRIPE_WORDS;
const MULTIPLIER = 0xcc9e2d51;
const SEED_STEP = 0x9e3779b9;
const ROTATION = 13;

/** @returns an unsigned 32-bit number */
export function hash32(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stripesEnd = bytes.length - (bytes.length % STRIPE_BYTES);
  let hash = Math.imul(bytes.length, SEED_STEP);
  if (stripesEnd > 0) {
    // 32 sums side by side, one for each word of a stripe.
    const sums = Int32Array.from({ length: STRIPE_WORDS }, (_, word) => Math.imul(word + 1, SEED_STEP));
    for (let at = 0; at < stripesEnd; at += STRIPE_BYTES) {
      for (let word = 0; word < STRIPE_WORDS; word++) {
        sums[word] = absorb(sums[word]!, view.getUint32(at + 4 * word, true));
      }
    }
    // Every fourth sum into one of the first four.
    for (let word = 4; word < STRIPE_WORDS; word++) sums[word % 4] = absorb(sums[word % 4]!, sums[word]!);
    for (const sum of sums.subarray(0, 4)) hash = absorb(hash, mixed(sum));
  }
  let at = stripesEnd;
  for (; at + 4 <= bytes.length; at += 4) hash = absorb(hash, view.getUint32(at, true));
  for (; at < bytes.length; at++) hash = absorb(hash, view.getUint8(at));
  return mixed(hash) >>> 0;
}

function absorb(sum: number, word: number): number {
  const product = Math.imul(sum ^ word, MULTIPLIER);
  return (product << ROTATION) | (product >>> (32 - ROTATION));
}

/** The finalizer of MurmurHash3. */
function mixed(sum: number): number {
  let bits = sum ^ (sum >>> 16);
  bits = Math.imul(bits, 0x85ebca6b);
  bits ^= bits >>> 13;
  bits = Math.imul(bits, 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}
