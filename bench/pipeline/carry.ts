// What any process between two sockets costs: bytes are read and written, and nobody looks at them. Nothing in Node can
// be faster.

import type { Channel } from "../../src/engine/ports.ts";

const CARRY_BYTES = 8 * 1024 * 1024;
const CARRY_READ_BYTES = 256 * 1024;
const nothing = () => {};

/** Carries whatever comes from the one to the other, and its end. */
export function carry(from: Channel, to: Channel): void {
  const buffer = Buffer.alloc(CARRY_BYTES);
  let [at, read] = [0, 0];
  to.listen({ data: nothing, drained: () => from.resume(), ended: nothing, failed: nothing });
  from.listen({
    // One after another: a piece of the buffer comes round again when what was in it is long gone.
    space: () => {
      at = at + read + CARRY_READ_BYTES > CARRY_BYTES ? 0 : at + read;
      return buffer.subarray(at, at + CARRY_READ_BYTES);
    },
    data: (bytes) => {
      read = bytes.length;
      if (!to.write(bytes)) from.pause();
    },
    drained: nothing,
    ended: () => to.end(),
    failed: nothing,
  });
}
