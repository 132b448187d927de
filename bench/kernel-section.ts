// Section "kernels": each kernel (bench/kernels.ts measures them) on the real page sets and the generated ones.

import { type KernelFigures, type KernelName, measureKernels } from "./kernels.ts";
import { PAGE_BYTES } from "./pages/page-set.ts";
import { pageSets } from "./pages/sets.ts";
import type { SectionOptions, SectionResult } from "./report.ts";
import type { Table } from "./table.ts";

export async function kernelsSection({ rebuildPages }: SectionOptions): Promise<SectionResult> {
  const sets = (await pageSets(rebuildPages)).map(({ name, oldPages, newPages }) => ({
    name,
    pageBytes: PAGE_BYTES,
    // From the beginning of buffers of their own.
    oldPages: new Uint8Array(oldPages),
    newPages: new Uint8Array(newPages),
  }));
  const figures = measureKernels(sets);
  return {
    name: "kernels",
    title: "Kernels",
    notes: [
      "GB/s of pages, one thread, wall clock; medians of rounds in which all take turns. In brackets, of encoders: the multiple of the best plain JavaScript loop that encodes XBZRLE.",
    ],
    tables: [{ caption: "Kernels (WebAssembly, SIMD)", table: tableOf(figures) }],
    goals: [],
    lines: figures.map((figure) => ({ section: "kernels", ...figure })),
  };
}

function tableOf(figures: readonly KernelFigures[]): Table {
  const names = Object.keys(figures[0]!.gigabytesPerSecond) as KernelName[];
  return [
    ["kernel", ...figures.map(({ set }) => set)],
    ...names.map((name) => [
      name,
      ...figures.map(({ gigabytesPerSecond, ratioToPlainLoop }) => {
        const ratio = ratioToPlainLoop[name];
        const speed = gigabytesPerSecond[name]?.toPrecision(3) ?? "-";
        return ratio === undefined ? speed : `${speed} (${ratio.toFixed(1)})`;
      }),
    ]),
  ];
}
