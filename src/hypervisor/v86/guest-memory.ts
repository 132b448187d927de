// The RAM of a running guest of the embedded hypervisor, as a sample of it is taken: pages are copied some hundred at a
// time, by the VM's own thread between two slices of the guest's time. Nothing of a migration is affected.

import { assert } from "../../base/assert.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { PAGE_BYTES } from "./dirty-scan.ts";
import { PAGES_PER_CALL_MAX } from "./protocol.ts";
import type { VmHost } from "./vm-host.ts";

export function v86GuestMemory(host: Pick<VmHost, "pageCount" | "readPages">): GuestMemory {
  let contents: Uint8Array = new Uint8Array(0);
  const placeOf = new Map<number, number>();
  return {
    pageBytes: PAGE_BYTES,
    pageCount: host.pageCount,
    // All of its memory is allocated from the beginning.
    present: (pages) => pages,
    load: async (pages) => {
      if (contents.length < pages.length * PAGE_BYTES) contents = new Uint8Array(pages.length * PAGE_BYTES);
      placeOf.clear();
      for (const [place, page] of pages.entries()) placeOf.set(page, place);
      for (let from = 0; from < pages.length; from += PAGES_PER_CALL_MAX) {
        const some = Uint32Array.from(pages.slice(from, from + PAGES_PER_CALL_MAX));
        await host.readPages(some, contents.subarray(from * PAGE_BYTES, (from + some.length) * PAGE_BYTES));
      }
    },
    read: (page, target) => {
      const place = placeOf.get(page);
      assert(place !== undefined, "a page is loaded before it is read");
      target.set(contents.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES));
    },
  };
}
