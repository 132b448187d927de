// A table as data, and as text, Markdown and HTML. Texts of records stand in its cells: whatever they hold, they stay
// text in all three.

import { headRow, scrollable } from "../../report/html/document.ts";
import { escapeHtml } from "../../report/html/svg.ts";
import { columns, plain } from "../../report/text.ts";

export interface Table {
  readonly caption: string;
  /** The first column names the row. */
  readonly head: readonly string[];
  readonly rows: readonly Row[];
  /** Of sentences rather than figures: nothing is put to the right. */
  readonly isProse?: boolean;
  /** Sentences below it. */
  readonly notes: readonly string[];
}

export interface Row {
  readonly cells: readonly string[];
  /** Says something about the rows above it. */
  readonly isFoot?: boolean;
}

export function tableText({ caption, head, rows, notes, isProse = false }: Table): string {
  const lines = columns(
    [head, ...rows.map(({ cells }) => cells)].map((row) => row.map(plain)),
    !isProse,
  );
  return [
    plain(caption),
    ...lines.map((line) => `  ${line}`),
    ...notes.map((note) => `  ${plain(note)}`),
  ].join("\n");
}

export function tableMarkdown({ caption, head, rows, notes, isProse = false }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    `${escapeMarkdown(caption)}:`,
    "",
    line(head.map(escapeMarkdown)),
    `|${head.map((_, index) => (index === 0 || isProse ? " --- |" : " ---: |")).join("")}`,
    ...rows.map(({ cells, isFoot }) =>
      line(cells.map((cell) => (isFoot && cell !== "" ? `*${escapeMarkdown(cell)}*` : escapeMarkdown(cell)))),
    ),
    ...(notes.length === 0 ? [] : ["", ...notes.map((note) => `- ${escapeMarkdown(note)}`)]),
  ].join("\n");
}

/** Text of a record in a paragraph, a list or a cell of Markdown (GFM): no mark-up, no HTML, no link. */
export function escapeMarkdown(text: string): string {
  return plain(text)
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;")
    .replace(/[\\`*_[\]|#~!$]/g, "\\$&")
    .replace(/^[-+](?=\s)/, "\\$&")
    .replace(/^(\d+)([.)])(?=\s|$)/, "$1\\$2")
    .replace(/(https?|ftp|mailto|xmpp)(:)/gi, "$1\\$2")
    .replace(/www\./gi, "www\\.")
    .replace(/@/g, "&#64;");
}

/** `of`: what tells it apart from others with its caption, for whoever jumps from one region of the page to the next. */
export function tableHtml({ caption, head, rows, notes, isProse = false }: Table, of?: string): string {
  const [body, foot] = [false, true].map((wanted) =>
    rows.filter(({ isFoot = false }) => isFoot === wanted).map(rowHtml),
  );
  const listed = notes.map((note) => `<li>${escapeHtml(note)}</li>`).join("");
  return (
    scrollable(
      of === undefined ? caption : `${caption}: ${of}`,
      `<table class="${isProse ? "prose" : "figures"}"><caption>${escapeHtml(caption)}</caption>${headRow(head)}` +
        `<tbody>${body!.join("\n")}</tbody>${foot!.length === 0 ? "" : `<tfoot>${foot!.join("\n")}</tfoot>`}</table>`,
    ) + (listed === "" ? "" : `<ul class="notes">${listed}</ul>`)
  );
}

function rowHtml({ cells: [name = "", ...others] }: Row): string {
  const cells = others.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("");
  return `<tr><th scope="row">${escapeHtml(name)}</th>${cells}</tr>`;
}
