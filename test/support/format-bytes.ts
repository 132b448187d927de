// Bytes as FORMAT.md writes them: "0a 5a*3" = 0a 5a 5a 5a; the count stands after the value.

export function parseFormatBytes(text: string): Uint8Array {
  return Uint8Array.from(
    text
      .split(/\s+/)
      .filter((word) => word !== "")
      .flatMap((word) => {
        const [value, count] = word.split("*");
        return new Array<number>(Number(count ?? 1)).fill(Number.parseInt(value!, 16));
      }),
  );
}

/** From the heading on to the next one of the same level. */
export function formatSection(text: string, heading: string): string {
  const [, level] = /^(#+ )/.exec(heading)!;
  const start = text.indexOf(`${heading}\n`);
  const end = text.indexOf(`\n${level}`, start + heading.length);
  return text.slice(start, end === -1 ? undefined : end);
}

/** The bytes of a line of a worked example: four spaces, their name, then they. */
export function exampleBytes(section: string, name: string): Uint8Array {
  return parseFormatBytes(new RegExp(`^ {4}${name} +([0-9a-f]{2}[ *]?.*)$`, "m").exec(section)?.[1] ?? "");
}

/** Cells of the rows of the first table in a section, without its head. */
export function tableRows(section: string): string[][] {
  return section
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2)
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")))
    .map((cells) => cells.slice(1, -1));
}
