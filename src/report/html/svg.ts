// The little that our plots need of SVG, as plain strings: escaping, numbers, axes, lines, one frame.
// It knows nothing of runs and migrations. Every number passes through `px`, so nothing that a record holds can
// put "NaN" or markup into the page; every axis has a handful of ticks whatever its values.

import { plain } from "../text.ts";

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text of a record as it may stand in HTML and SVG, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  return plain(text).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}

/** A coordinate, to a tenth of a pixel. */
export function px(value: number): string {
  return Number.isFinite(value) ? String(Math.round(value * 10) / 10) : "0";
}

export interface Unit {
  readonly name: string;
  /** One of it, in the unit that values are in. */
  readonly size: number;
}

/** The largest unit that is not larger than `max`, from units in ascending order. */
export function unitFor(max: number, units: readonly [Unit, ...Unit[]]): Unit {
  return units.findLast(({ size }) => size <= max) ?? units[0];
}

export interface Axis {
  /** Pixel of a value; values outside of the axis are put on its end. */
  at(value: number): number;
  readonly ticks: readonly { readonly px: number; readonly label: string }[];
}

/** From 0, or from below `min` where that is less, to at least `max`, with about `tickCount` round ticks. */
export function linearAxis(max: number, unit: Unit, [from, to]: Span, tickCount: number, min = 0): Axis {
  const maxInUnit = max > 0 ? onAxis(max / unit.size) : 1;
  const belowInUnit = min < 0 ? onAxis(-min / unit.size) : 0;
  const step = roundStep((maxInUnit + belowInUnit) / tickCount);
  const first = -Math.ceil(belowInUnit / step - 1e-9);
  const stepCount = Math.ceil(maxInUnit / step - 1e-9) - first;
  const [start, length] = [first * step * unit.size, stepCount * step * unit.size];
  const at = (value: number) => from + clamp((value - start) / length, 0, 1) * (to - from);
  const ticks = Array.from({ length: stepCount + 1 }, (_, index) => ({
    px: at((first + index) * step * unit.size),
    label: tickLabel((first + index) * step),
  }));
  return { at, ticks };
}

/** Whole decades that hold `min` and `max`, at most LOG_DECADES_MAX; what is smaller is put on the axis' start. */
export function logAxis(min: number, max: number, unit: Unit, [from, to]: Span): Axis {
  const end = Math.ceil(Math.log10(onAxis(max / unit.size)));
  const lowest = Math.floor(Math.log10(onAxis(min / unit.size)));
  const start = clamp(lowest, end - LOG_DECADES_MAX, end - 1);
  const at = (value: number) =>
    from + clamp((Math.log10(onAxis(value / unit.size)) - start) / (end - start), 0, 1) * (to - from);
  const ticks = Array.from({ length: end - start + 1 }, (_, index) => ({
    px: at(10 ** (start + index) * unit.size),
    label: tickLabel(10 ** (start + index)),
  }));
  return { at, ticks };
}

const LOG_DECADES_MAX = 8;

/** Pixels that an axis runs from and to. */
export type Span = readonly [from: number, to: number];

/** Beyond these, in the axis' unit, arithmetic on ticks would leave what numbers can hold. */
const AXIS_MIN = 1e-9;
const AXIS_MAX = 1e18;

function onAxis(value: number): number {
  return Number.isNaN(value) ? AXIS_MIN : clamp(value, AXIS_MIN, AXIS_MAX);
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}

/** The next of 1, 2, 5, 10, ... */
function roundStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 5].find((candidate) => candidate * power >= step * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** At most six characters: what the margin has room for. */
function tickLabel(value: number): string {
  if (value !== 0 && (Math.abs(value) >= 1e12 || Math.abs(value) < 1e-3)) return value.toExponential(0);
  const notation = Math.abs(value) >= 1e5 ? "compact" : "standard";
  return value.toLocaleString("en-US", { notation, maximumSignificantDigits: 4 });
}

/** Equal bands side by side, one per label, with as many labels as there is room for. */
export interface Bands {
  readonly bandPx: number;
  /** Left edge of a band. */
  at(index: number): number;
  readonly ticks: Axis["ticks"];
}

const BAND_LABEL_PX = 34;

export function bands(labels: readonly string[], [from, to]: Span): Bands {
  const bandPx = (to - from) / Math.max(1, labels.length);
  const every = Math.max(1, Math.ceil(BAND_LABEL_PX / bandPx));
  const at = (index: number) => from + index * bandPx;
  return {
    bandPx,
    at,
    ticks: labels
      .map((label, index) => ({ px: at(index) + bandPx / 2, label }))
      .filter((_, index) => index % every === 0),
  };
}

/** A picture is drawn once for wide and once for narrow screens: scaling one would make its text unreadable. */
interface Size {
  readonly name: "wide" | "narrow";
  readonly widthPx: number;
  readonly heightPx: number;
}

const SIZES: readonly Size[] = [
  { name: "wide", widthPx: 580, heightPx: 300 },
  { name: "narrow", widthPx: 350, heightPx: 260 },
];

const MARGIN = { left: 52, right: 14, top: 38, bottom: 44 };

export interface Plot {
  readonly size: Size;
  readonly xSpan: Span;
  /** From bottom to top. */
  readonly ySpan: Span;
}

export interface PictureText {
  /** Unique on the page. */
  readonly id: string;
  readonly title: string;
  /** What the picture shows, for those who do not see it. */
  readonly description: string;
}

/** The picture in both sizes; CSS shows one of them, and hides the other from screen readers too. */
export function picture(text: PictureText, draw: (plot: Plot) => string, heightPx?: number): string {
  return SIZES.map((usual) => {
    const size = heightPx === undefined ? usual : { ...usual, heightPx };
    const id = `${text.id}-${size.name}`;
    const xSpan: Span = [MARGIN.left, size.widthPx - MARGIN.right];
    const ySpan: Span = [size.heightPx - MARGIN.bottom, MARGIN.top];
    return (
      `<svg class="${size.name}" viewBox="0 0 ${size.widthPx} ${size.heightPx}" role="img" aria-labelledby="${id}-t ${id}-d">` +
      `<title id="${id}-t">${escapeHtml(text.title)}</title><desc id="${id}-d">${escapeHtml(text.description)}</desc>` +
      `${draw({ size, xSpan, ySpan })}</svg>`
    );
  }).join("\n");
}

/** Grid, ticks and the axes' names: x below the plot, y above it, where it need not be turned. */
export function frame(
  plot: Plot,
  x: { ticks: Axis["ticks"]; name: string },
  y: { ticks: Axis["ticks"]; name: string },
): string {
  const [left, right] = plot.xSpan;
  const [bottom, top] = plot.ySpan;
  const yTicks = y.ticks.map(
    (tick) =>
      `<path class="grid" d="M${px(left)} ${px(tick.px)}H${px(right)}"/>` +
      `<text class="tick" x="${px(left - 6)}" y="${px(tick.px + 4)}" text-anchor="end">${escapeHtml(tick.label)}</text>`,
  );
  const xTicks = x.ticks.map(
    (tick) =>
      `<text class="tick" x="${px(tick.px)}" y="${px(bottom + 16)}" text-anchor="middle">${escapeHtml(tick.label)}</text>`,
  );
  return (
    `${yTicks.join("")}${xTicks.join("")}<path class="axis" d="M${px(left)} ${px(bottom)}H${px(right)}"/>` +
    `<text class="axis-name" x="${px((left + right) / 2)}" y="${px(bottom + 36)}" text-anchor="middle">${escapeHtml(x.name)}</text>` +
    `<text class="axis-name" x="2" y="${px(top - 22)}">${escapeHtml(y.name)}</text>`
  );
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

export function line(points: readonly Point[], className: string): string {
  const [first, ...others] = points;
  if (first === undefined) return "";
  const path = `M${px(first.x)} ${px(first.y)}${others.map(({ x, y }) => `L${px(x)} ${px(y)}`).join("")}`;
  return `<path class="line ${className}" d="${path}"/>`;
}

/** A rectangle between two values of a vertical axis, with a text that shows when it is pointed at. */
export function bar(
  x: number,
  widthPx: number,
  yFrom: number,
  yTo: number,
  className: string,
  says: string,
): string {
  const top = Math.min(yFrom, yTo);
  return (
    `<rect class="${className}" x="${px(x)}" y="${px(top)}" width="${px(widthPx)}" height="${px(Math.abs(yFrom - yTo))}">` +
    `<title>${escapeHtml(says)}</title></rect>`
  );
}
