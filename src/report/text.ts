// Text for a terminal: aligned columns, counts and shares as people read them, and nothing that a terminal
// would obey. It knows nothing of migrations.

/** C0, C1 and the characters that turn the direction of text: a peer's message must not steer a terminal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is what it is for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** `text` in one line that a terminal only prints. */
export function plain(text: string): string {
  return text.replace(/\s+/g, " ").replace(CONTROL, "?").trim();
}

/** Rows as aligned columns: the first to the left, the others as `alignRight` says. No trailing spaces. */
export function columns(rows: readonly (readonly string[])[], alignRight: boolean): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, index) => {
        const width = widths[index] ?? 0;
        return alignRight && index > 0 ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** "12,345". Not by Intl: whoever starts a migration would wait for its tables, a quarter as long as for all the rest. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(?:\d{3})+$)/g, ",");
}

/** "86.0%"; never "100.0%" for a part that is not the whole, nor "0.0%" for one that is something. */
export function formatRatio(ratio: number): string {
  const percent = ratio * 100;
  if (percent > 0 && percent < 0.1) return "<0.1%";
  if (percent < 100 && percent > 99.9) return ">99.9%";
  return `${Math.abs(percent) < 0.05 ? "0.0" : percent.toFixed(1)}%`;
}

/** Three figures that count, thousands grouped: "0.042", "8.10", "84.2", "6,700". */
export function formatFigure(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e12 || size < 1e-3) return value.toExponential(2);
  const isWhole = Number.isInteger(value) && size < 1e6;
  const digits = isWhole || size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
