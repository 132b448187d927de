// What several kernels do with lines of 64 bytes (a cache line each) and with short runs of bytes.
// Everything here exists twice, for builds with and without SIMD; the branch is taken by the compiler.

export const LINE_BYTES: usize = 64;

@inline
export function areLinesEqual(a: usize, b: usize): bool {
  if (ASC_FEATURE_SIMD) {
    return !v128.any_true(
      v128.or(
        v128.or(v128.xor(v128.load(a), v128.load(b)), v128.xor(v128.load(a, 16), v128.load(b, 16))),
        v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48))),
      ),
    );
  } else {
    return (
      ((load<u64>(a) ^ load<u64>(b)) |
        (load<u64>(a, 8) ^ load<u64>(b, 8)) |
        (load<u64>(a, 16) ^ load<u64>(b, 16)) |
        (load<u64>(a, 24) ^ load<u64>(b, 24)) |
        (load<u64>(a, 32) ^ load<u64>(b, 32)) |
        (load<u64>(a, 40) ^ load<u64>(b, 40)) |
        (load<u64>(a, 48) ^ load<u64>(b, 48)) |
        (load<u64>(a, 56) ^ load<u64>(b, 56))) ==
      0
    );
  }
}

/** Bit i is set when byte i of the two lines differs. */
@inline
export function changedBytes(a: usize, b: usize): u64 {
  if (ASC_FEATURE_SIMD) {
    const equal0 = <u64>(<u32>i8x16.bitmask(i8x16.eq(v128.load(a), v128.load(b))));
    const equal1 = <u64>(<u32>i8x16.bitmask(i8x16.eq(v128.load(a, 16), v128.load(b, 16))));
    const equal2 = <u64>(<u32>i8x16.bitmask(i8x16.eq(v128.load(a, 32), v128.load(b, 32))));
    const equal3 = <u64>(<u32>i8x16.bitmask(i8x16.eq(v128.load(a, 48), v128.load(b, 48))));
    return ~(equal0 | (equal1 << 16) | (equal2 << 32) | (equal3 << 48));
  } else {
    return (
      nonZeroBytes(load<u64>(a) ^ load<u64>(b)) |
      (nonZeroBytes(load<u64>(a, 8) ^ load<u64>(b, 8)) << 8) |
      (nonZeroBytes(load<u64>(a, 16) ^ load<u64>(b, 16)) << 16) |
      (nonZeroBytes(load<u64>(a, 24) ^ load<u64>(b, 24)) << 24) |
      (nonZeroBytes(load<u64>(a, 32) ^ load<u64>(b, 32)) << 32) |
      (nonZeroBytes(load<u64>(a, 40) ^ load<u64>(b, 40)) << 40) |
      (nonZeroBytes(load<u64>(a, 48) ^ load<u64>(b, 48)) << 48) |
      (nonZeroBytes(load<u64>(a, 56) ^ load<u64>(b, 56)) << 56)
    );
  }
}

/** Bit j is set when 8-byte word j of the two pairs of lines differs. */
@inline
export function changedWordsOfTwo(a: usize, b: usize): u32 {
  if (ASC_FEATURE_SIMD) {
    // A comparison gives words of 64 equal bits: as lanes of half the size these are narrowed, three times, until
    // each is a byte.
    const low = i16x8.narrow_i32x4_s(equalWordsOf32(a, b), equalWordsOf32(a + 32, b + 32));
    const high = i16x8.narrow_i32x4_s(equalWordsOf32(a + 64, b + 64), equalWordsOf32(a + 96, b + 96));
    return i8x16.bitmask(i8x16.narrow_i16x8_s(low, high)) ^ 0xffff;
  } else {
    return changedWords(a, b) | (changedWords(a + LINE_BYTES, b + LINE_BYTES) << 8);
  }
}

/** A lane of 32 bits, all or none of them set, for each of four 8-byte words. */
@inline
function equalWordsOf32(a: usize, b: usize): v128 {
  return i16x8.narrow_i32x4_s(
    i64x2.eq(v128.load(a), v128.load(b)),
    i64x2.eq(v128.load(a, 16), v128.load(b, 16)),
  );
}

@inline
function changedWords(a: usize, b: usize): u32 {
  return (
    u32(load<u64>(a) != load<u64>(b)) |
    (u32(load<u64>(a, 8) != load<u64>(b, 8)) << 1) |
    (u32(load<u64>(a, 16) != load<u64>(b, 16)) << 2) |
    (u32(load<u64>(a, 24) != load<u64>(b, 24)) << 3) |
    (u32(load<u64>(a, 32) != load<u64>(b, 32)) << 4) |
    (u32(load<u64>(a, 40) != load<u64>(b, 40)) << 5) |
    (u32(load<u64>(a, 48) != load<u64>(b, 48)) << 6) |
    (u32(load<u64>(a, 56) != load<u64>(b, 56)) << 7)
  );
}

/** Bit i is set when byte i of the word is not zero. */
@inline
export function nonZeroBytes(word: u64): u64 {
  // First the top bit of each such byte, then the multiplication moves the eight of them side by side.
  const marks = (((word & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | word) & 0x8080808080808080;
  return ((marks >> 7) * 0x0102040810204080) >> 56;
}

@inline
export function copyLine(target: usize, source: usize): void {
  copy16(target, source);
  copy16(target + 16, source + 16);
  copy16(target + 32, source + 32);
  copy16(target + 48, source + 48);
}

@inline
export function copy16(target: usize, source: usize): void {
  if (ASC_FEATURE_SIMD) {
    v128.store(target, v128.load(source));
  } else {
    const low = load<u64>(source);
    const high = load<u64>(source, 8);
    store<u64>(target, low);
    store<u64>(target, high, 8);
  }
}

/**
 * Copies by 16 bytes: up to 15 bytes beyond the run are read, and written too. For encoders, which write front to
 * back into a buffer with room to spare.
 */
@inline
export function copyLoosely(target: usize, source: usize, bytes: usize): void {
  copy16(target, source);
  for (let i: usize = 16; i < bytes; i += 16) copy16(target + i, source + i);
}

/** Copies these bytes and touches no others: for decoders, which change a page in place. Ranges do not overlap. */
@inline
export function copyExactly(target: usize, source: usize, bytes: usize): void {
  if (bytes >= 16) {
    const last = bytes - 16;
    for (let i: usize = 0; i < last; i += 16) copy16(target + i, source + i);
    copy16(target + last, source + last);
  } else if (bytes >= 8) {
    const last = bytes - 8;
    store<u64>(target, load<u64>(source));
    store<u64>(target + last, load<u64>(source + last));
  } else if (bytes >= 4) {
    const last = bytes - 4;
    store<u32>(target, load<u32>(source));
    store<u32>(target + last, load<u32>(source + last));
  } else if (bytes > 0) {
    store<u8>(target, load<u8>(source));
    store<u8>(target + bytes - 1, load<u8>(source + bytes - 1));
    store<u8>(target + (bytes >> 1), load<u8>(source + (bytes >> 1)));
  }
}
