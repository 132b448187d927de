// A table of what became of the guest, faults by phases, as docs/reliability.md shows it (SECURITY.md: what bad peers and
// bad input got): written by the tests that have seen it, between two comments of that file. Text around them is people's.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "./package-root.ts";

const RELIABILITY = "docs/reliability.md";
/** Of a cell whose moment had passed each time before anything could be done. */
const NOT_MET = "moment not met in this run";

export class FaultTable {
  readonly #corner: string;
  readonly #columns: readonly string[];
  /** By row, by column. */
  readonly #cells = new Map<string, Map<string, string>>();

  constructor(corner: string, columns: readonly string[]) {
    this.#corner = corner;
    this.#columns = columns;
  }

  /** `outcome`: where the guest is, and the code of what was said, if anything was: "source LINK_LOST". */
  note(row: string, column: string, outcome: string): void {
    const cells = this.#cells.get(row) ?? new Map<string, string>();
    this.#cells.set(row, cells);
    cells.set(column, outcome.replace(/ ([A-Z_/]+)$/, ", `$1`"));
  }

  /** On a busy machine the moment may have passed, however often it was waited for: then nothing was seen of it. */
  noteNotMet(row: string, column: string): void {
    this.note(row, column, NOT_MET);
  }

  /** Where nothing was seen stands "–": such a fault cannot be then. */
  markdown(rows: readonly string[]): string {
    const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
    return [
      line([this.#corner, ...this.#columns]),
      `|${"---|".repeat(this.#columns.length + 1)}`,
      ...rows.map((row) =>
        line([row, ...this.#columns.map((column) => this.#cells.get(row)?.get(column) ?? "–")]),
      ),
    ].join("\n");
  }
}

/**
 * Lines of `content`, as a table has them, that `documented` has not, in words. A moment that was not met, in the run that
 * was documented or in this one, contradicts nothing.
 */
export function contradictions(documented: string, content: string): string[] {
  const lines = documented.split("\n").map(cellsOf);
  return content.split("\n").filter((line) => {
    const cells = cellsOf(line);
    return !lines.some(
      (other) =>
        other.length === cells.length &&
        cells.every((cell, index) => cell === other[index] || [cell, other[index]].includes(NOT_MET)),
    );
  });
}

/** `documented` with the rows that `content` has put in their places; further ones at its end. Others stay as they are. */
export function withRows(documented: string, content: string): string {
  const nameOf = (line: string) => cellsOf(line)[1];
  const fresh = new Map(content.split("\n").map((line) => [nameOf(line), line]));
  const lines = documented.split("\n").map((line) => {
    const renewed = fresh.get(nameOf(line)) ?? line;
    fresh.delete(nameOf(line));
    return renewed;
  });
  return [...lines, ...fresh.values()].join("\n");
}

const cellsOf = (line: string): string[] => line.split("|").map((cell) => cell.trim());

/**
 * What stands in the file between `<!-- name -->` and `<!-- /name -->`. With UPDATE_RELIABILITY=1 in the environment
 * `content` is put there first, if there is any.
 */
export function documentedTable(name: string, content?: string, document = RELIABILITY): string {
  const file = join(PACKAGE_ROOT, document);
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  const start = text.indexOf(begin) + begin.length;
  const to = text.indexOf(end, start);
  if (start < begin.length || to === -1) throw new Error(`${document} has no place for ${begin}`);
  if (content !== undefined && process.env.UPDATE_RELIABILITY === "1") {
    writeFileSync(file, `${text.slice(0, start)}\n${content}\n${text.slice(to)}`);
    return content;
  }
  return text.slice(start, to).trim();
}
