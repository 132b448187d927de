// A plot on a page: title, a sentence that says what it shows, legend, picture. And the units that axes are in.

import { escapeHtml, type Plot, picture, type Unit } from "./svg.ts";

export const TIME_UNITS: readonly [Unit, ...Unit[]] = [
  { name: "s", size: 1000 },
  { name: "min", size: 60_000 },
];
export const BYTE_UNITS: readonly [Unit, ...Unit[]] = [
  { name: "B", size: 1 },
  { name: "kB", size: 1e3 },
  { name: "MB", size: 1e6 },
  { name: "GB", size: 1e9 },
];
/** In bytes per second, as values are. */
export const RATE_UNITS: readonly [Unit, ...Unit[]] = [
  { name: "kbit/s", size: 1e3 / 8 },
  { name: "Mbit/s", size: 1e6 / 8 },
  { name: "Gbit/s", size: 1e9 / 8 },
];
export const MS: Unit = { name: "ms", size: 1 };

export interface Figure {
  readonly id: string;
  readonly title: string;
  /** What it shows, with the figures that matter: for those who do not see it, and for those who do. */
  readonly says: string;
  readonly legend: readonly LegendEntry[];
  readonly draw: (plot: Plot) => string;
  /** Of the picture; where it depends on what is in it. */
  readonly heightPx?: number;
}

interface LegendEntry {
  readonly name: string;
  /** Class of a line, or of a filled box. */
  readonly line?: string;
  readonly box?: string;
}

export function figureHtml(figure: Figure): string {
  const { id, title, says, legend, draw, heightPx } = figure;
  return (
    `<figure><figcaption><h3>${escapeHtml(title)}</h3><p>${escapeHtml(says)}</p></figcaption>` +
    (legend.length === 0 ? "" : `<ul class="legend">${legend.map(legendItem).join("")}</ul>\n`) +
    `${picture({ id, title, description: says }, draw, heightPx)}</figure>\n`
  );
}

function legendItem({ name, line: lineClass, box }: LegendEntry): string {
  const swatch =
    lineClass === undefined
      ? `<rect class="${box}" x="6" y="0" width="16" height="12"/>`
      : `<path class="line ${lineClass}" d="M0 6H28"/>`;
  return `<li><svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">${swatch}</svg>${escapeHtml(name)}</li>`;
}

export function emptyFigure(title: string, why: string): string {
  return `<figure><figcaption><h3>${escapeHtml(title)}</h3></figcaption><p class="empty">${escapeHtml(why)}</p></figure>\n`;
}
