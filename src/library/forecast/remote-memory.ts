// Guest memory that another thread of this process reads, page by page over a port: the embedded hypervisor's, which
// only the thread that has started the VM can ask. Who samples it has one end, and whoever has the memory the other, which
// does nothing but copy.

import type { MessagePort } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { toError } from "../../base/errors.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";

/** What is asked for at once: a message of 1 MiB, and of the thread that has the memory no more time than to copy it. */
const PAGES_PER_CALL = 256;

export interface RemoteMemoryPlace {
  readonly pageBytes: number;
  readonly pageCount: number;
  readonly port: MessagePort;
}

/** Indices are asked for; contents one behind the other, or why there are none, are the answer. Both are moved. */
type Answer = Uint8Array<ArrayBuffer> | { readonly error: string };

/** Answers until the port is closed; does not keep the process alive. */
export function serveMemory(memory: GuestMemory, port: MessagePort): void {
  const answer = async (pages: readonly number[]): Promise<Answer> => {
    try {
      await memory.load?.(pages);
      const contents = new Uint8Array(pages.length * memory.pageBytes);
      for (const [place, page] of pages.entries()) {
        const at = place * memory.pageBytes;
        memory.read(page, contents.subarray(at, at + memory.pageBytes));
      }
      return contents;
    } catch (thrown) {
      return { error: toError(thrown).message };
    }
  };
  port.on("message", async (pages: number[]) => {
    const answered = await answer(pages);
    port.postMessage(answered, answered instanceof Uint8Array ? [answered.buffer] : []);
  });
  port.unref();
}

/** All of whose pages are there; one `load` at a time. */
export function remoteMemory({ pageBytes, pageCount, port }: RemoteMemoryPlace): GuestMemory {
  let contents = new Uint8Array(0);
  const placeOf = new Map<number, number>();
  const ask = (pages: readonly number[]) =>
    new Promise<Uint8Array>((resolve, reject) => {
      port.once("message", (answer: Answer) => {
        if (answer instanceof Uint8Array) resolve(answer);
        else reject(new Error(answer.error));
      });
      port.postMessage(pages);
    });
  return {
    pageBytes,
    pageCount,
    present: (pages) => pages,
    load: async (pages) => {
      if (contents.length < pages.length * pageBytes) contents = new Uint8Array(pages.length * pageBytes);
      placeOf.clear();
      for (let from = 0; from < pages.length; from += PAGES_PER_CALL) {
        const some = pages.slice(from, from + PAGES_PER_CALL);
        contents.set(await ask(some), from * pageBytes);
        for (const [i, page] of some.entries()) placeOf.set(page, from + i);
      }
    },
    read: (page, target) => {
      const place = placeOf.get(page);
      assert(place !== undefined, "a page is loaded before it is read");
      target.set(contents.subarray(place * pageBytes, (place + 1) * pageBytes));
    },
  };
}
