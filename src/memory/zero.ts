// Is a page all zero? Most of a fresh guest's RAM is: such pages travel as a few bytes and are stored as none.

import { assert } from "../base/assert.ts";

/** Largest page that can be asked about. */
const ZERO_PAGE_BYTES_MAX = 65536;

const zeros = Buffer.alloc(ZERO_PAGE_BYTES_MAX);

/** True when the `pageBytes` bytes from `offset` on are all zero. Any alignment; nothing is allocated. */
export function isZeroPage(bytes: Uint8Array, offset: number, pageBytes: number): boolean {
  assert(pageBytes > 0 && pageBytes <= ZERO_PAGE_BYTES_MAX, "page size within the zero page");
  assert(offset >= 0 && offset + pageBytes <= bytes.length, "page within its buffer");
  // Most pages that are not zero show it at one of these; that saves the call into native code. A page that is
  // zero is read to its end, and memcmp does that several times faster than a loop here.
  if (bytes[offset] !== 0 || bytes[offset + (pageBytes >>> 1)] !== 0) return false;
  return zeros.compare(bytes, offset, offset + pageBytes, 0, pageBytes) === 0;
}
