// XBZRLE (src/codec/FORMAT.md): byte for byte what the reference src/codec/xbzrle.ts writes, and accepting exactly
// what it accepts. A line that did not change costs one comparison; of any other line a mask with a bit per changed
// byte is made, and the ends of runs are the bits at which that mask changes.

import { areLinesEqual, changedBytes, copyExactly, copyLoosely, LINE_BYTES } from "./lines";

/** Largest page whose runs 14-bit lengths can say. */
export const XBZRLE_PAGE_BYTES_MAX: usize = 16384;

/** Lengths below this take one byte, others two. */
const TWO_BYTE_LENGTH_MIN: usize = 0x80;

/** As many lines as a 64-bit mask has bits for. */
const BLOCK_BYTES: usize = 4096;

const OVERFLOW: i32 = -1;

export function xbzrleEncode(
  oldPage: usize,
  newPage: usize,
  pageBytes: usize,
  out: usize,
  outLimitBytes: usize,
): i32 {
  assert(pageBytes % LINE_BYTES == 0 && pageBytes <= XBZRLE_PAGE_BYTES_MAX, "page of whole lines, not too large");
  assert(outLimitBytes <= pageBytes, "delta limit no larger than the page");
  const outEnd = out + outLimitBytes;
  let at = out;
  /** Bytes of the page that the runs written so far account for. */
  let covered: usize = 0;
  let runStart: usize = 0;
  /** 1 while the run that began at runStart goes on. */
  let open: u64 = 0;
  /** 1 when the byte before the line changed. */
  let before: u64 = 0;
  /** The line after the last one that changed. */
  let nextLine: usize = 0;

  const blockBytes = min(pageBytes, BLOCK_BYTES);
  for (let block: usize = 0; block < pageBytes; block += blockBytes) {
    // First which lines changed: without a branch that could be mispredicted, and the memory is read ahead as fast
    // as it can be.
    let changedLines: u64 = 0;
    for (let line = block; line < block + blockBytes; line += LINE_BYTES) {
      changedLines = (changedLines >> 1) | (u64(!areLinesEqual(oldPage + line, newPage + line)) << 63);
    }
    changedLines >>= <u64>(64 - blockBytes / LINE_BYTES);

    while (changedLines != 0) {
      const line = block + <usize>ctz(changedLines) * LINE_BYTES;
      changedLines &= changedLines - 1;
      if (line != nextLine) {
        // Between them are lines that did not change.
        if (open != 0) {
          at = writeRun(at, outEnd, runStart - covered, newPage + runStart, nextLine - runStart);
          if (at == 0) return OVERFLOW;
          covered = nextLine;
          open = 0;
        }
        before = 0;
      }
      nextLine = line + LINE_BYTES;

      const changed = changedBytes(oldPage + line, newPage + line);
      // A single unchanged byte between changed ones joins them. The byte after the line is only looked at when it
      // matters: when the line ends in a changed and an unchanged byte.
      let after: u64 = 0;
      if (changed >> 62 == 1 && nextLine < pageBytes) {
        after = u64(load<u8>(oldPage + nextLine) != load<u8>(newPage + nextLine));
      }
      const runs = changed | (((changed << 1) | before) & ((changed >> 1) | (after << 63)));
      before = changed >> 63;
      let ends = runs ^ ((runs << 1) | open);
      while (ends != 0) {
        if (open == 0) {
          runStart = line + <usize>ctz(ends);
          open = 1;
          ends &= ends - 1;
          if (ends == 0) break;
        }
        const runEnd = line + <usize>ctz(ends);
        ends &= ends - 1;
        open = 0;
        at = writeRun(at, outEnd, runStart - covered, newPage + runStart, runEnd - runStart);
        if (at == 0) return OVERFLOW;
        covered = runEnd;
      }
    }
  }
  if (open != 0) {
    at = writeRun(at, outEnd, runStart - covered, newPage + runStart, nextLine - runStart);
    if (at == 0) return OVERFLOW;
  }
  return <i32>(at - out);
}

/** Returns the address after the run, or 0 when it would go beyond `outEnd`. */
@inline
function writeRun(at: usize, outEnd: usize, zeroRun: usize, source: usize, changedRun: usize): usize {
  at = writeLengths(at, outEnd, zeroRun, changedRun);
  if (at == 0) return 0;
  copyLoosely(at, source, changedRun);
  return at + changedRun;
}

/** Returns the address after the two lengths, or 0 when the run would go beyond `outEnd`. */
@inline
export function writeLengths(at: usize, outEnd: usize, zeroRun: usize, changedRun: usize): usize {
  if ((zeroRun | changedRun) < TWO_BYTE_LENGTH_MIN) {
    if (at + 2 + changedRun > outEnd) return 0;
    store<u16>(at, <u16>(zeroRun | (changedRun << 8)));
    return at + 2;
  }
  const lengthBytes: usize = 2 + usize(zeroRun >= TWO_BYTE_LENGTH_MIN) + usize(changedRun >= TWO_BYTE_LENGTH_MIN);
  if (at + lengthBytes + changedRun > outEnd) return 0;
  return writeLength(writeLength(at, zeroRun), changedRun);
}

@inline
function writeLength(at: usize, length: usize): usize {
  if (length < TWO_BYTE_LENGTH_MIN) {
    store<u8>(at, <u8>length);
    return at + 1;
  }
  store<u8>(at, <u8>(length | 0x80));
  store<u8>(at, <u8>(length >> 7), 1);
  return at + 2;
}

/** What a decoder returns for a delta that is damaged at this offset. */
@inline
export function corruptAt(offset: usize): i32 {
  return -1 - <i32>offset;
}

export function xbzrleDecode(delta: usize, deltaBytes: usize, page: usize, pageBytes: usize): i32 {
  assert(pageBytes > 0 && pageBytes <= XBZRLE_PAGE_BYTES_MAX, "page size within what XBZRLE can describe");
  if (deltaBytes == 0 || deltaBytes > pageBytes) return corruptAt(0);
  let at: usize = 0;
  let covered: usize = 0;
  while (at < deltaBytes) {
    // A length is never last in a delta, so two bytes can be read of each, whether or not it needs them.
    if (at + 2 > deltaBytes) return corruptAt(at);
    let zeroRun = <usize>load<u8>(delta + at);
    if (zeroRun >= TWO_BYTE_LENGTH_MIN) {
      const high = <usize>load<u8>(delta + at, 1);
      if (high - 1 >= TWO_BYTE_LENGTH_MIN - 1) return corruptAt(at);
      zeroRun = (zeroRun & 0x7f) | (high << 7);
      at++;
    } else if (zeroRun == 0 && at > 0) {
      return corruptAt(at);
    }
    at++;
    covered += zeroRun;

    const lengthAt = at;
    if (at + 2 > deltaBytes) return corruptAt(at);
    let changedRun = <usize>load<u8>(delta + at);
    if (changedRun >= TWO_BYTE_LENGTH_MIN) {
      const high = <usize>load<u8>(delta + at, 1);
      if (high - 1 >= TWO_BYTE_LENGTH_MIN - 1) return corruptAt(at);
      changedRun = (changedRun & 0x7f) | (high << 7);
      at++;
    } else if (changedRun == 0) {
      return corruptAt(at);
    }
    if (covered + changedRun > pageBytes) return corruptAt(lengthAt);
    at++;
    if (at + changedRun > deltaBytes) return corruptAt(at);
    copyExactly(page + covered, delta + at, changedRun);
    at += changedRun;
    covered += changedRun;
  }
  return <i32>covered;
}
