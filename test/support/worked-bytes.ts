// The worked examples of a page of documentation: blocks of names, each followed by its bytes as a hex dump.

import { readFileSync } from "node:fs";

const LINE_BYTES = 16;

export function workedBytesIn(file: URL, language: string): [string, Buffer][] {
  return workedBytes(readFileSync(file, "utf8"), language);
}

/** Name (in lower case) and bytes, in order; `*` repeats the line before it up to the offset of the next. */
export function workedBytes(page: string, language: string): [string, Buffer][] {
  const block = new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, "s").exec(page)?.[1] ?? "";
  return [...block.matchAll(/^([A-Z]+)\n((?:(?:[0-9a-f]{4} .*|\*)\n)+)/gm)].map(([, name, dump]) => {
    let bytes = Buffer.alloc(0);
    for (const line of dump!.trimEnd().split("\n")) {
      if (line === "*") continue;
      const [, offset, hex] = /^([0-9a-f]{4}) {2}((?:[0-9a-f]{2} ?)+)/.exec(line)!;
      while (bytes.length < Number.parseInt(offset!, 16)) {
        bytes = Buffer.concat([bytes, bytes.subarray(-LINE_BYTES)]);
      }
      bytes = Buffer.concat([bytes, Buffer.from(hex!.replaceAll(" ", ""), "hex")]);
    }
    return [name!.toLowerCase(), bytes];
  });
}
