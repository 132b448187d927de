// Names of records as they stand under a table: those that differ in the number of their run only are one entry,
// "video-tunnel-{1,2,3}.ndjson", which a shell expands to the files again.

import { groupBy } from "./contests.ts";

export function recordNames(files: readonly string[]): string[] {
  const parts = [...new Set(files)].sort().map((file) => {
    const [, stem = file, run] = /^(.*-)(\d+)\.ndjson$/.exec(file) ?? [];
    return { file, stem, run };
  });
  return [...groupBy(parts, ({ stem }) => stem)].map(([stem, members]) => {
    const runs = members.map(({ run }) => run).sort((a, b) => Number(a) - Number(b));
    return members.length === 1 ? members[0]!.file : `${stem}{${runs.join(",")}}.ndjson`;
  });
}
