// Whole ranges: is it zero, is it equal, copy, fill. Any address, any length.

import { areLinesEqual, LINE_BYTES } from "./lines";

export function isZero(address: usize, bytes: usize): bool {
  const end = address + bytes;
  let at = address;
  for (; at + LINE_BYTES <= end; at += LINE_BYTES) {
    if (!isLineZero(at)) return false;
  }
  for (; at + 8 <= end; at += 8) if (load<u64>(at) != 0) return false;
  for (; at < end; at++) if (load<u8>(at) != 0) return false;
  return true;
}

export function isEqual(a: usize, b: usize, bytes: usize): bool {
  let i: usize = 0;
  for (; i + LINE_BYTES <= bytes; i += LINE_BYTES) {
    if (!areLinesEqual(a + i, b + i)) return false;
  }
  for (; i + 8 <= bytes; i += 8) if (load<u64>(a + i) != load<u64>(b + i)) return false;
  for (; i < bytes; i++) if (load<u8>(a + i) != load<u8>(b + i)) return false;
  return true;
}

export function copy(target: usize, source: usize, bytes: usize): void {
  memory.copy(target, source, bytes);
}

export function fill(address: usize, value: u32, bytes: usize): void {
  memory.fill(address, <u8>value, bytes);
}

@inline
function isLineZero(at: usize): bool {
  if (ASC_FEATURE_SIMD) {
    return !v128.any_true(
      v128.or(
        v128.or(v128.load(at), v128.load(at, 16)),
        v128.or(v128.load(at, 32), v128.load(at, 48)),
      ),
    );
  } else {
    return (
      (load<u64>(at) |
        load<u64>(at, 8) |
        load<u64>(at, 16) |
        load<u64>(at, 24) |
        load<u64>(at, 32) |
        load<u64>(at, 40) |
        load<u64>(at, 48) |
        load<u64>(at, 56)) ==
      0
    );
  }
}
