// Points over time, thinned out to what a plot can show. The highest and the lowest of those near each other stay: a
// gap or a dip is what is looked for.

/** As many columns as a plot has pixels across, about; two points of each are kept. */
const COLUMNS_MAX = 300;

/** `points` in order of time. */
export function thinned<Point extends { readonly value: number }>(
  points: readonly Point[],
): readonly Point[] {
  if (points.length <= 2 * COLUMNS_MAX) return points;
  const perColumn = Math.ceil(points.length / COLUMNS_MAX);
  const kept: Point[] = [];
  for (let start = 0; start < points.length; start += perColumn) {
    const column = points.slice(start, start + perColumn);
    const lowest = column.reduce((low, point) => (point.value < low.value ? point : low));
    const highest = column.reduce((high, point) => (point.value > high.value ? point : high));
    kept.push(...column.filter((point) => point === lowest || point === highest));
  }
  return kept;
}
