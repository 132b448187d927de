// The guests that the analysis is about: 1 GiB, of which 256 MiB are written to at a rate, a number of bytes in each page
// that is dirtied. What pages and their changes cost is measured with our own codecs, on pages made for it.

import { seeded } from "../../src/base/seeded.ts";
import { loadKernel } from "../../src/kernel/kernel.ts";
import { KernelMemory } from "../../src/kernel/memory.ts";
import type { GuestModel } from "../../src/planner/guest-model.ts";
import { type ChangeSizes, PageMeter } from "../../src/planner/page-meter.ts";

const PAGE_BYTES = 4096;
const MIB = 2 ** 20;
export const GUEST_MIB = 1024;
export const WORKING_SET_MIB = 256;
/** Of RAM, besides the working set, that is not zero. */
const SYSTEM_MIB = 128;
const SAMPLE_PAGES = 256;
const WARM_UPS = 2;

export type Content = "random" | "text";

/** Costs of pages with this content, of which so many bytes change at a time. */
export interface Costs {
  readonly sizes: ChangeSizes;
  readonly codedShare: { fast: number; strong: number };
  readonly cpuMsPerPage: { delta: number; fast: number; strong: number };
}

const WORDS =
  "the guest writes to its memory and pages that were sent before are sent again as what has changed".split(
    " ",
  );

export function measureCosts(content: Content, bytesPerPage: number): Costs {
  const random = seeded(bytesPerPage);
  const memory = new KernelMemory();
  const kernel = loadKernel(memory);
  const meter = new PageMeter(memory, kernel, PAGE_BYTES, cpuMs);
  // A delta takes less than a look at the CPU time does.
  const deltaMeter = new PageMeter(memory, kernel, PAGE_BYTES, () => performance.now());
  const fill = (target: Uint8Array) => {
    if (content === "random") for (let i = 0; i < target.length; i++) target[i] = random() * 256;
    else {
      let text = "";
      while (text.length < target.length) text += `${WORDS[Math.floor(random() * WORDS.length)]} `;
      target.set(Buffer.from(text).subarray(0, target.length));
    }
  };
  const pairs = Array.from({ length: SAMPLE_PAGES }, () => {
    const old = new Uint8Array(PAGE_BYTES);
    fill(old);
    const now = old.slice();
    const at = Math.floor(random() * (PAGE_BYTES - bytesPerPage + 1));
    fill(now.subarray(at, at + bytesPerPage));
    return [old, now] as const;
  });
  // What is not warm yet would count as work on pages.
  for (let i = 0; i < WARM_UPS; i++) {
    for (const each of [meter, deltaMeter]) each.measureChanges(pairs);
    meter.measureWhole(pairs.map(([, now]) => now));
  }
  const codedShare = meter.measureWhole(pairs.map(([, now]) => now));
  const sizes = meter.measureChanges(pairs)!;
  deltaMeter.measureChanges(pairs);
  return { sizes, codedShare, cpuMsPerPage: { ...meter.cpuMsPerPage, delta: deltaMeter.cpuMsPerPage.delta } };
}

/** Of this process: whatever else the machine does lengthens the time, and not this. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

export function guestOf(costs: Costs, dirtyPagesPerSecond: number): GuestModel {
  const pages = (GUEST_MIB * MIB) / PAGE_BYTES;
  const hot = (WORKING_SET_MIB * MIB) / PAGE_BYTES;
  const { pages: _, ...sizes } = costs.sizes;
  return {
    pageBytes: PAGE_BYTES,
    pages,
    zeroPages: pages - hot - (SYSTEM_MIB * MIB) / PAGE_BYTES,
    rateClasses: [
      { pages: pages - hot, changesPerSecond: 0, deltaSizes: [] },
      {
        pages: hot,
        changesPerSecond: dirtyPagesPerSecond / hot,
        deltaSizes: [{ afterMs: 1000, ...sizes }],
      },
    ],
    codedShare: costs.codedShare,
    rewrittenPagesPerSecond: 0,
    cpuMsPerPage: costs.cpuMsPerPage,
    sampledPages: 0,
    sampledMs: 0,
  };
}
