// A plot as a file of its own, for pages that show pictures (Markdown): the same drawing and colours as in a report, with
// its title and legend inside, on a ground of its own, light or dark as the reader has it. No script, nothing loaded.

import type { Figure } from "./figure.ts";
import { STYLE } from "./style.ts";
import { escapeHtml, px } from "./svg.ts";

const WIDTH_PX = 760;
const TITLE_PX = 30;
const LEGEND_LINE_PX = 20;
const LEGEND_LETTER_PX = 6.7;
const SWATCH_PX = 34;
const GAP_PX = 16;
const LEFT_PX = 16;
const PLOT = { left: 70, right: 24, above: 48, below: 52 };
const PLOT_HEIGHT_PX = 330;

/** SVG text. `heightPx` of the figure is that of the plot. */
export function standaloneSvg({ id, title, says, legend, draw, heightPx = PLOT_HEIGHT_PX }: Figure): string {
  const parts: string[] = [];
  let [x, y] = [LEFT_PX, TITLE_PX + LEGEND_LINE_PX];
  for (const { name, line, box } of legend) {
    const widthPx = SWATCH_PX + name.length * LEGEND_LETTER_PX;
    if (x > LEFT_PX && x + widthPx > WIDTH_PX - LEFT_PX) [x, y] = [LEFT_PX, y + LEGEND_LINE_PX];
    parts.push(
      line === undefined
        ? `<rect class="${box}" x="${px(x + 6)}" y="${px(y - 10)}" width="16" height="12"/>`
        : `<path class="line ${line}" d="M${px(x)} ${px(y - 4)}h28"/>`,
      `<text x="${px(x + SWATCH_PX)}" y="${px(y)}">${escapeHtml(name)}</text>`,
    );
    x += widthPx + GAP_PX;
  }
  const top = (legend.length === 0 ? TITLE_PX : y) + PLOT.above;
  const allPx = top + heightPx + PLOT.below;
  const plot = draw({
    size: { name: "wide", widthPx: WIDTH_PX, heightPx: allPx },
    xSpan: [PLOT.left, WIDTH_PX - PLOT.right],
    ySpan: [top + heightPx, top],
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH_PX} ${px(allPx)}" width="${WIDTH_PX}" height="${px(allPx)}" ` +
    `role="img" aria-labelledby="${id}-t ${id}-d">\n<title id="${id}-t">${escapeHtml(title)}</title>` +
    `<desc id="${id}-d">${escapeHtml(says)}</desc>\n<style>${STYLE}svg{max-width:none}.ground{fill:var(--background);stroke:none}</style>\n` +
    `<rect class="ground" width="${WIDTH_PX}" height="${px(allPx)}"/>` +
    `<text x="${LEFT_PX}" y="${TITLE_PX - 8}" style="font-weight:600;font-size:15px">${escapeHtml(title)}</text>\n` +
    `${parts.join("")}\n${plot}\n</svg>\n`
  );
}
