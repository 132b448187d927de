// Both ends of guest memory that another thread reads, in one thread.

import { MessageChannel } from "node:worker_threads";
import { expect, onTestFinished, test } from "vitest";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { remoteMemory, serveMemory } from "./remote-memory.ts";

const PAGE_BYTES = 4096;
const PAGE_COUNT = 1000;

/** Each page is filled with its number, and can only be read when it was loaded last. */
class CountedMemory implements GuestMemory {
  readonly pageBytes = PAGE_BYTES;
  readonly pageCount = PAGE_COUNT;
  readonly loads: number[] = [];
  failure: Error | undefined;
  #loaded = new Set<number>();

  present(pages: readonly number[]): readonly number[] {
    return pages;
  }

  async load(pages: readonly number[]): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.loads.push(pages.length);
    this.#loaded = new Set(pages);
  }

  read(page: number, target: Uint8Array): void {
    expect(this.#loaded).toContain(page);
    target.fill(page % 251);
  }
}

function begin() {
  const memory = new CountedMemory();
  const { port1, port2 } = new MessageChannel();
  onTestFinished(() => port1.close());
  serveMemory(memory, port1);
  return {
    memory,
    remote: remoteMemory({ pageBytes: PAGE_BYTES, pageCount: PAGE_COUNT, port: port2 }),
  };
}

test("pages are as the thread has them that has the memory, some at a time", async () => {
  const { memory, remote } = begin();
  expect(remote).toMatchObject({ pageBytes: PAGE_BYTES, pageCount: PAGE_COUNT });
  const pages = Array.from({ length: 600 }, (_, i) => i + 3);
  await remote.load!(pages);
  expect(memory.loads).toEqual([256, 256, 88]);
  const target = new Uint8Array(PAGE_BYTES);
  for (const page of pages) {
    remote.read(page, target);
    expect(target.every((byte) => byte === page % 251)).toBe(true);
  }
});

test("what was loaded before is forgotten", async () => {
  const { remote } = begin();
  await remote.load!([1, 2]);
  await remote.load!([7]);
  expect(() => remote.read(1, new Uint8Array(PAGE_BYTES))).toThrow("a page is loaded before it is read");
});

test("memory that cannot be read is said to be the reason, and may be readable again", async () => {
  const { memory, remote } = begin();
  memory.failure = new Error("The VM has ended");
  await expect(remote.load!([1])).rejects.toThrow("The VM has ended");
  memory.failure = undefined;
  await remote.load!([1]);
  const target = new Uint8Array(PAGE_BYTES);
  remote.read(1, target);
  expect(target[0]).toBe(1);
});
