// Damage to byte strings, for fuzz tests: some edits of the kinds that find faults in parsers, at places where there is
// something to find. Cheap: one copy of the input, nothing else allocated.

import type { Random } from "../sim/random.ts";

export interface Damage {
  random: Random;
  /** Pieces of it may be put in. */
  other: Uint8Array;
  /** Offsets around which half of the edits are made. */
  places: readonly number[];
  words?: readonly string[] | undefined;
}

const EDITS_MAX = 4;
/** Around a place, and from either end. */
const NEAR_BYTES = 24;
const PIECE_BYTES_MAX = 64;
/** Lengths, counts and numbers that are at an edge of something. */
const INTERESTING = [
  0,
  1,
  2,
  3,
  4,
  8,
  16,
  63,
  64,
  127,
  128,
  255,
  256,
  4095,
  4096,
  32767,
  65535,
  65536,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
];
const scratch = Buffer.alloc(1 << 20);

/** A copy of `bytes` with one to four edits, exactly as long as it is: reading past its end is seen. */
export function mutated(bytes: Uint8Array, damage: Damage): Uint8Array {
  const { random } = damage;
  scratch.set(bytes);
  let length = bytes.length;
  const edits = random.chance(0.5) ? 1 : random.int(1, EDITS_MAX);
  for (let edit = 0; edit < edits; edit++) {
    if (length + 2 * PIECE_BYTES_MAX > scratch.length) break;
    length = edited(length, damage);
  }
  return new Uint8Array(scratch.subarray(0, length));
}

export function randomInput(random: Random, bytesMax: number): Uint8Array {
  const bytes = new Uint8Array(random.int(0, random.chance(0.5) ? Math.min(40, bytesMax) : bytesMax));
  for (let i = 0; i < bytes.length; i++) bytes[i] = random.bits();
  return bytes;
}

/** Edits `scratch`; the length that it then has. */
function edited(length: number, { random, other, places, words }: Damage): number {
  if (length === 0) return put(0, 0, random, random.int(1, 8));
  const at = placeOf(length, places, random);
  switch (random.int(0, 9)) {
    case 0:
      scratch[at]! ^= 1 << random.int(0, 7);
      return length;
    case 1:
      scratch[at]! += random.int(-16, 16);
      return length;
    case 2:
      scratch[at] = random.bits();
      return length;
    case 3:
      scratch[at] = random.pick(INTERESTING);
      return length;
    case 4:
      return number(length, at, random);
    case 5:
      return drop(length, at, random.int(1, random.chance(0.1) ? length : 8));
    case 6:
      return put(length, at, random, random.int(1, 8));
    case 7:
      if (words !== undefined) return insert(length, at, Buffer.from(random.pick(words)));
      return insert(length, at, pieceOf(other, random));
    case 8:
      return insert(length, at, pieceOf(other, random));
    default: {
      // What stands there once more, or over what follows.
      const piece = Buffer.from(scratch.subarray(at, Math.min(length, at + random.int(1, PIECE_BYTES_MAX))));
      if (random.chance(0.5)) return insert(length, at, piece);
      piece.copy(scratch, Math.min(length - piece.length, placeOf(length, places, random)));
      return length;
    }
  }
}

function placeOf(length: number, places: readonly number[], random: Random): number {
  const where = random.int(0, 3);
  if (places.length > 0 && where < 2) {
    return Math.min(length - 1, Math.max(0, random.pick(places) + random.int(-NEAR_BYTES, NEAR_BYTES)));
  }
  const near = Math.min(NEAR_BYTES, length) - 1;
  if (where === 1) return random.int(0, near);
  if (where === 2) return length - 1 - random.int(0, near);
  return random.int(0, length - 1);
}

function pieceOf(other: Uint8Array, random: Random): Uint8Array {
  if (other.length === 0) return other;
  const at = random.int(0, other.length - 1);
  return other.subarray(at, at + random.int(1, PIECE_BYTES_MAX));
}

/** A number of 2, 4 or 8 bytes in either order, written over what is there. */
function number(length: number, at: number, random: Random): number {
  const bytes = 2 << random.int(0, 2);
  if (at + bytes > length) return length;
  const value = random.chance(0.2) ? length - at : random.pick(INTERESTING) + random.int(-1, 1);
  const isBig = random.chance(0.5);
  for (let i = 0; i < bytes; i++) {
    // Beyond 32 bits: the sign alone.
    scratch[isBig ? at + bytes - 1 - i : at + i] = i < 4 ? value >> (8 * i) : value < 0 ? 255 : 0;
  }
  return length;
}

function drop(length: number, at: number, bytes: number): number {
  scratch.copyWithin(at, at + bytes, length);
  return Math.max(at, length - bytes);
}

function insert(length: number, at: number, piece: Uint8Array): number {
  scratch.copyWithin(at + piece.length, at, length);
  scratch.set(piece, at);
  return length + piece.length;
}

function put(length: number, at: number, random: Random, bytes: number): number {
  scratch.copyWithin(at + bytes, at, length);
  for (let i = 0; i < bytes; i++) scratch[at + i] = random.bits();
  return length + bytes;
}
