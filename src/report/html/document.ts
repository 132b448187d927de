// What is around a report: one HTML file that can be mailed about. No script, nothing loaded from anywhere (a content
// policy inside forbids it), light or dark as the reader has it. And tables that narrow screens can scroll.

import { STYLE } from "./style.ts";
import { escapeHtml } from "./svg.ts";

/** `body` is HTML; `title` is text; `style` is CSS beyond that of all reports. */
export function documentHtml(title: string, body: string, style = ""): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)}</title>
<style>${STYLE}${style}</style>
</head>
<body>
${body}
</body>
</html>
`;
}

/** A table that scrolls by itself when the screen is too narrow, by keyboard too. */
export function scrollable(name: string, table: string): string {
  return `<div class="scroll" role="region" aria-label="${escapeHtml(name)}" tabindex="0">${table}</div>`;
}

/** A column without a name has a cell that is none: nothing is read out for it. */
export function headRow(names: readonly string[]): string {
  const cells = names.map((name) => (name === "" ? "<td></td>" : `<th scope="col">${escapeHtml(name)}</th>`));
  return `<thead><tr>${cells.join("")}</tr></thead>`;
}
