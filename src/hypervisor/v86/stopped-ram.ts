// RAM of a v86 VM that stands still, for whoever compares it with a copy: its one block, through its thread.

import { assert } from "../../base/assert.ts";
import type { StoppedRam } from "../../engine/ports.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { PAGES_PER_CALL_MAX } from "./protocol.ts";
import type { VmHost } from "./vm-host.ts";

/** Name of the one RAMBlock. */
export const BLOCK = "ram";

export function v86StoppedRam(host: VmHost): StoppedRam {
  return {
    lengthOf: (idstr) => (idstr === BLOCK ? host.memoryBytes : undefined),
    read: async (_idstr, offsetBytes, target) => {
      const pageCount = target.length / PAGE_BYTES;
      assert(pageCount <= PAGES_PER_CALL_MAX, "what is read at once goes through the exchange");
      const first = offsetBytes / PAGE_BYTES;
      await host.readPages(
        Uint32Array.from({ length: pageCount }, (_, page) => first + page),
        target,
      );
    },
    close: () => {},
  };
}
