// LZ4, the block format (lz4_Block_format.md of the reference implementation), both ways. A block is sequences of
// a token, literals, and a match: so many bytes again from so far back. The compressor keeps the last place of
// every hash of five bytes and strides ever faster over what does not repeat; it writes the same block in every
// build, whatever the table held before.

import { copy16, copyExactly } from "./lines";

const MATCH_BYTES_MIN: usize = 4;
/** The format: the last five bytes are literals, and no match begins in the last twelve. */
const LAST_LITERALS_BYTES: usize = 5;
const MATCH_START_MARGIN_BYTES: usize = 12;
const DISTANCE_BYTES_MAX: usize = 65535;
/** Lengths of 15 and more go on after the token. */
const LENGTH_NIBBLE_MAX: usize = 15;
/** After 2^6 positions in a row without a match every second one is tried, after as many again every third... */
const STRIDE_SHIFT: usize = 6;
/**
 * The table has up to 2^12 entries of four bytes: more would find a little more and no longer stay in the fastest
 * cache. A short source needs fewer, and they are cleared faster.
 */
const HASH_BITS_MAX: u32 = 12;
const HASH_BITS_MIN: u32 = 8;
/** Odd, with well-mixed bits (a prime of XXH64). */
const HASH_MULTIPLIER: u64 = 0x9e3779b185ebca87;

const DOES_NOT_FIT: i32 = -1;
const DAMAGED: i32 = -1;

/**
 * Of the low five bytes of the word. Four would do for a match, but among memory's 8-byte words the same four are
 * often followed by others: five find longer matches and compare less in vain.
 */
@inline
function slotOf(table: usize, hashShift: u64, word: u64): usize {
  return table + ((<usize>(((word << 24) * HASH_MULTIPLIER) >> hashShift)) << 2);
}

export function lz4Compress(
  source: usize,
  sourceBytes: usize,
  out: usize,
  outLimitBytes: usize,
  table: usize,
): i32 {
  const hashBits = max(HASH_BITS_MIN, min(HASH_BITS_MAX, 31 - <u32>clz<u32>(<u32>sourceBytes | 1)));
  const hashShift = <u64>(64 - hashBits);
  memory.fill(table, 0, <usize>4 << hashBits);
  const end = source + sourceBytes;
  const outEnd = out + outLimitBytes;
  const matchEndMax = end - LAST_LITERALS_BYTES;
  let at = out;
  /** Where the literals of the sequence under way begin. */
  let anchor = source;

  if (sourceBytes > MATCH_START_MARGIN_BYTES) {
    const lastStart = end - MATCH_START_MARGIN_BYTES;
    // Entries are offsets from the source, 0 in a cleared table: position 0 is thereby entered, and the search
    // begins at 1.
    let i = source + 1;
    while (i <= lastStart) {
      let candidate: usize;
      let tries: usize = 1 << STRIDE_SHIFT;
      for (;;) {
        const word = load<u64>(i);
        const slot = slotOf(table, hashShift, word);
        candidate = source + <usize>load<u32>(slot);
        store<u32>(slot, <u32>(i - source));
        if (load<u32>(candidate) == <u32>word && i - candidate <= DISTANCE_BYTES_MAX) break;
        i += tries++ >> STRIDE_SHIFT;
        if (i > lastStart) break;
      }
      if (i > lastStart) break;
      while (i > anchor && candidate > source && load<u8>(i - 1) == load<u8>(candidate - 1)) {
        i--;
        candidate--;
      }
      const distance = i - candidate;
      const matchEnd = endOfMatch(i + MATCH_BYTES_MIN, candidate + MATCH_BYTES_MIN, matchEndMax);
      const extra = matchEnd - i - MATCH_BYTES_MIN;
      const literals = i - anchor;

      const tokenAt = at;
      if (at + 1 + lengthBytesOf(literals) + literals + 2 + lengthBytesOf(extra) > outEnd) return DOES_NOT_FIT;
      at = writeLength(at + 1, literals);
      at = copyLiterals(at, anchor, literals, outEnd, end);
      store<u16>(at, <u16>distance);
      at = writeLength(at + 2, extra);
      store<u8>(tokenAt, <u8>((min(literals, LENGTH_NIBBLE_MAX) << 4) | min(extra, LENGTH_NIBBLE_MAX)));

      i = matchEnd;
      anchor = i;
      if (i > lastStart) break;
      store<u32>(slotOf(table, hashShift, load<u64>(i - 2)), <u32>(i - 2 - source));
    }
  }

  const literals = end - anchor;
  if (at + 1 + lengthBytesOf(literals) + literals > outEnd) return DOES_NOT_FIT;
  store<u8>(at, <u8>(min(literals, LENGTH_NIBBLE_MAX) << 4));
  at = writeLength(at + 1, literals);
  memory.copy(at, anchor, literals);
  return <i32>(at + literals - out);
}

/** First address >= `a` at which the bytes differ from those at `b` on, or `end`. */
@inline
function endOfMatch(a: usize, b: usize, end: usize): usize {
  while (a + 8 <= end) {
    const difference = load<u64>(a) ^ load<u64>(b);
    if (difference != 0) return a + <usize>(ctz(difference) >> 3);
    a += 8;
    b += 8;
  }
  while (a < end && load<u8>(a) == load<u8>(b)) {
    a++;
    b++;
  }
  return a;
}

/** Bytes that a length takes beside its half of the token. */
@inline
function lengthBytesOf(length: usize): usize {
  return length < LENGTH_NIBBLE_MAX ? 0 : 1 + (length - LENGTH_NIBBLE_MAX) / 255;
}

@inline
function writeLength(at: usize, length: usize): usize {
  if (length < LENGTH_NIBBLE_MAX) return at;
  length -= LENGTH_NIBBLE_MAX;
  while (length >= 255) {
    store<u8>(at++, 255);
    length -= 255;
  }
  store<u8>(at, <u8>length);
  return at + 1;
}

/** Most runs of literals are short: then one vector is copied where both ranges have room for it. */
@inline
function copyLiterals(target: usize, from: usize, bytes: usize, targetEnd: usize, fromEnd: usize): usize {
  if (bytes <= 16 && target + 16 <= targetEnd && from + 16 <= fromEnd) copy16(target, from);
  else copyExactly(target, from, bytes);
  return target + bytes;
}

export function lz4Decompress(source: usize, sourceBytes: usize, out: usize, outBytes: usize): i32 {
  const end = source + sourceBytes;
  const outEnd = out + outBytes;
  let from = source;
  let at = out;
  while (from < end) {
    const token = <usize>load<u8>(from++);
    let literals = token >> 4;
    if (literals == LENGTH_NIBBLE_MAX) {
      let byte: usize;
      do {
        if (from == end) return DAMAGED;
        byte = <usize>load<u8>(from++);
        literals += byte;
      } while (byte == 255);
    }
    // Compared with what is left, not added to an address: a hostile length must not wrap around. The sum of the
    // bytes of a length cannot: it is at most 255 times the source.
    if (literals > end - from || literals > outEnd - at) return DAMAGED;
    copyLiterals(at, from, literals, outEnd, end);
    at += literals;
    from += literals;
    // A block ends with literals and nowhere else.
    if (from == end) return at == outEnd ? <i32>outBytes : DAMAGED;

    if (end - from < 2) return DAMAGED;
    const distance = <usize>load<u16>(from);
    from += 2;
    if (distance == 0 || distance > at - out) return DAMAGED;
    let matchBytes = token & LENGTH_NIBBLE_MAX;
    if (matchBytes == LENGTH_NIBBLE_MAX) {
      let byte: usize;
      do {
        if (from == end) return DAMAGED;
        byte = <usize>load<u8>(from++);
        matchBytes += byte;
      } while (byte == 255);
    }
    matchBytes += MATCH_BYTES_MIN;
    if (matchBytes > outEnd - at) return DAMAGED;
    copyMatch(at, distance, matchBytes, outEnd);
    at += matchBytes;
  }
  return DAMAGED;
}

/**
 * A match may overlap what it writes: its bytes are then repeated with the period of the distance. Where there is
 * room, whole vectors or words are written, and what is too much is overwritten by what follows.
 */
@inline
function copyMatch(target: usize, distance: usize, bytes: usize, targetEnd: usize): void {
  const source = target - distance;
  if (targetEnd - target < bytes + 16) {
    for (let i: usize = 0; i < bytes; i++) store<u8>(target + i, load<u8>(source + i));
  } else if (distance >= 16) {
    copy16(target, source);
    for (let i: usize = 16; i < bytes; i += 16) copy16(target + i, source + i);
  } else if (distance >= 8) {
    for (let i: usize = 0; i < bytes; i += 8) store<u64>(target + i, load<u64>(source + i));
  } else if ((distance & (distance - 1)) == 0) {
    // Periods of 1, 2 and 4 bytes fill a word.
    let word: u64;
    if (distance == 1) word = <u64>load<u8>(source) * 0x0101010101010101;
    else if (distance == 2) word = <u64>load<u16>(source) * 0x0001000100010001;
    else word = <u64>load<u32>(source) * 0x0000000100000001;
    for (let i: usize = 0; i < bytes; i += 8) store<u64>(target + i, word);
  } else {
    for (let i: usize = 0; i < bytes; i++) store<u8>(target + i, load<u8>(source + i));
  }
}
