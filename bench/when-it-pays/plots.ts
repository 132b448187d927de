// The plots of docs/when-it-pays.md. Curves are the planner's, points are runs of the lab with the same guest; a plot of
// what no run has measured has none, and says so.

import { formatBytesPerSecond, formatMs } from "../../src/base/units.ts";
import type { RunResult } from "../../src/lab/report/results.ts";
import { slotsWithin } from "../../src/memory/page-directory.ts";
import { POLICIES } from "../../src/memory/policy/all.ts";
import { METHODS, type MethodName } from "../../src/planner/methods.ts";
import type { MigrationOutcome } from "../../src/planner/migration.ts";
import type { Figure } from "../../src/report/html/figure.ts";
import { escapeHtml, frame, line, linearAxis, logAxis, type Plot, px } from "../../src/report/html/svg.ts";
import { PageTraceBuilder } from "../../src/trace/page-trace.ts";
import { replay } from "../../src/trace/replay.ts";
import { QUIET_GUEST, type SyntheticGuest, synthesize } from "../../test/support/synthetic-trace.ts";
import { type Content, type Costs, GUEST_MIB, WORKING_SET_MIB } from "./guests.ts";

export interface PlotInput {
  readonly bytesPerPage: readonly number[];
  readonly linksMbit: readonly number[];
  readonly methods: readonly MethodName[];
  readonly dirtyPagesPerSecond: number;
  readonly costs: Readonly<Record<Content, ReadonlyMap<number, Costs>>>;
  readonly simulate: (
    content: Content,
    bytesPerPage: number,
    method: MethodName,
    pagesPerSecond: number,
    mbit: number,
  ) => MigrationOutcome;
  readonly results: readonly RunResult[];
}

const BYTES = { name: "B", size: 1 };
const MBIT = { name: "Mbit/s", size: 1 };
const SHARE = { name: "%", size: 0.01 };
/** Between these a link that just suffices is searched for, this finely. */
const LINK_MBIT = { min: 1, max: 100_000 };
const SEARCH_RATIO = 1.03;
const CACHE_SHARES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1] as const;
const PLOTTED_POLICIES = ["direct", "lru-2way", "arc", "history"] as const;
/** Pages of half of it are hot, the others are written now and then; the hot ones are others after some iterations. */
const CACHE_GUEST: SyntheticGuest = {
  ...QUIET_GUEST,
  ...{ uniformWrites: 4000, hotPages: 6000, phaseIterations: 7, sweptPages: 1500 },
};
/** Of a guest that converges by every method on all but the slowest links. */
const HURT_RATE = 500;
const HURT_MBIT = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000] as const;

const lineClass = (index: number) => `s${index % 6} dash${index % 6}`;

/** Each by the name of its file. */
export function plots(input: PlotInput): Record<string, Figure> {
  return {
    "break-even": breakEven(input),
    "cache-hits": cacheHits(),
    "best-method-random": bestMethod(input, "random"),
    "best-method-text": bestMethod(input, "text"),
    "where-delta-hurts": whereDeltaHurts(input),
  };
}

/** Runs of the lab's writer with the guest that the curves are of, but for what is plotted. */
function writerRuns({ results, dirtyPagesPerSecond }: PlotInput, content: Content): readonly RunResult[] {
  return results.filter(({ setting: { scenario, parameters, guest, link } }) => {
    const { contentKind, workingSetMiB, dirtyPagesPerSecond: rate } = parameters;
    return (
      scenario === "writer" &&
      contentKind === content &&
      workingSetMiB === WORKING_SET_MIB &&
      rate === dirtyPagesPerSecond &&
      guest.memoryMiB === GUEST_MIB &&
      link.lossShare === 0
    );
  });
}

const mbitOf = ({ setting }: RunResult) => setting.link.bytesPerSecond / 125_000;
const bytesOf = ({ setting }: RunResult) => Number(setting.parameters.bytesPerPage);

function breakEven(input: PlotInput): Figure {
  const { methods, bytesPerPage, dirtyPagesPerSecond, costs } = input;
  const least = methods.map((method) => bytesPerPage.map((bytes) => leastLink(input, method, bytes)));
  const most = bytesPerPage.map((bytes) => {
    const { sizes, cpuMsPerPage } = costs.random.get(bytes)!;
    // B < (p - s) n / c, with one core for it; the comparison twice, as the tunnel makes it.
    const bytesPerSecond = ((4096 - sizes.tunnelBytes) / (2 * cpuMsPerPage.delta)) * 1000;
    return Math.max(LINK_MBIT.min, bytesPerSecond / 125_000);
  });
  const runs = writerRuns(input, "random").filter((run) =>
    methods.some((name) => name === run.setting.method),
  );
  const measured = runs.map(
    (run) =>
      `${run.setting.method} with ${bytesOf(run)} B at ${mbitOf(run)} Mbit/s ${run.converged ? "converged" : "did not"}`,
  );
  return {
    id: "break-even",
    title: "Which link suffices, and up to which comparing pays",
    says:
      `The slowest link over which each method converges, of a guest that dirties ${dirtyPagesPerSecond} pages a second, by how ` +
      `much of a page changes; and the fastest for which comparing takes less time than it saves. ${measured.length === 0 ? "No run of the lab is of this guest." : `In the lab: ${measured.join("; ")}.`}`,
    legend: [
      ...methods.map((method, index) => ({ name: METHODS[method].title, line: lineClass(index) })),
      { name: "above: comparing costs more than it saves", line: "limit" },
      ...(runs.length === 0
        ? []
        : [{ name: "lab: full converged, hollow not; colour of the method", box: "fill-s0" }]),
    ],
    draw(plot) {
      const x = logAxis(Math.min(...bytesPerPage), Math.max(...bytesPerPage), BYTES, plot.xSpan);
      const y = logAxis(1, LINK_MBIT.max, MBIT, plot.ySpan);
      const at = (values: readonly number[]) =>
        values.map((value, index) => ({ x: x.at(bytesPerPage[index]!), y: y.at(value) }));
      return (
        frame(
          plot,
          { ...x, name: "bytes changed of each dirty page (logarithmic)" },
          { ...y, name: "link, Mbit/s (logarithmic)" },
        ) +
        least.map((values, index) => line(at(values), lineClass(index))).join("") +
        line(at(most), "limit") +
        runs
          .map((run) =>
            dot(
              x.at(bytesOf(run)),
              y.at(mbitOf(run)),
              methods.indexOf(run.setting.method as MethodName),
              run,
            ),
          )
          .join("")
      );
    },
  };
}

function dot(x: number, y: number, series: number, run: RunResult): string {
  // Runs at the same place stand beside each other.
  const at = x + (series - 2) * 9;
  const style = run.converged ? "" : ' style="fill:var(--background);stroke-width:2.5"';
  const says = `${run.setting.method}, ${bytesOf(run)} B, ${formatBytesPerSecond(run.setting.link.bytesPerSecond)}: ${run.converged ? "converged" : "did not converge"}`;
  return `<circle class="${run.converged ? `dot fill-s${series}` : `s${series}`}" cx="${px(at)}" cy="${px(y)}" r="5"${style}><title>${escapeHtml(says)}</title></circle>`;
}

function leastLink({ simulate, dirtyPagesPerSecond }: PlotInput, method: MethodName, bytes: number): number {
  const converges = (mbit: number) => simulate("random", bytes, method, dirtyPagesPerSecond, mbit).converges;
  let [low, high] = [LINK_MBIT.min, LINK_MBIT.max];
  while (high / low > SEARCH_RATIO) {
    const middle = Math.sqrt(low * high);
    if (converges(middle)) high = middle;
    else low = middle;
  }
  return high;
}

function cacheHits(): Figure {
  const builder = new PageTraceBuilder("synthetic");
  synthesize(CACHE_GUEST, builder);
  const { trace } = builder;
  const names = [...PLOTTED_POLICIES, "optimal"] as const;
  const kinds = names.map((name) =>
    name === "optimal" ? name : POLICIES.find((kind) => kind.name === name)!,
  );
  const livePages = trace.pageCount - CACHE_GUEST.zeroPages;
  const shares = kinds.map((kind) =>
    CACHE_SHARES.map((share) => {
      const pages = Math.floor(share * livePages);
      const slots =
        kind === "optimal"
          ? pages
          : slotsWithin(pages * trace.pageBytes, trace.pageCount, trace.pageBytes, kind);
      const { hits, pagesAgain } = replay(trace, kind, slots);
      return hits / pagesAgain;
    }),
  );
  return {
    id: "cache-hits",
    title: "What a page cache finds, by its size and policy",
    says:
      "Of pages that are dirty again, those whose version before is still in the cache, of a made-up guest: hot pages that are " +
      "others after a while, a sweep, and writes all over its RAM. Measured by running the policies themselves over its page trace.",
    legend: names.map((name, index) => ({ name, line: lineClass(index) })),
    draw(plot) {
      const x = linearAxis(1, SHARE, plot.xSpan, 10);
      const y = linearAxis(1, SHARE, plot.ySpan, 5);
      const curves = shares.map((values, index) => {
        const points = values.map((value, at) => ({ x: x.at(CACHE_SHARES[at]!), y: y.at(value) }));
        const dots = points.map(
          (point) => `<circle class="dot fill-s${index}" cx="${px(point.x)}" cy="${px(point.y)}" r="3.5"/>`,
        );
        return line(points, lineClass(index)) + dots.join("");
      });
      return (
        frame(plot, { ...x, name: "cache, % of what is not zero" }, { ...y, name: "found, %" }) +
        curves.join("")
      );
    },
  };
}

function bestMethod(input: PlotInput, content: Content): Figure {
  const { methods, bytesPerPage, linksMbit, dirtyPagesPerSecond, simulate } = input;
  const cells = bytesPerPage.map((bytes) =>
    linksMbit.map((mbit) => {
      const converging = methods
        .map((method) => ({ method, outcome: simulate(content, bytes, method, dirtyPagesPerSecond, mbit) }))
        .filter(({ outcome }) => outcome.converges);
      return converging.length === 0
        ? undefined
        : converging.reduce((a, b) => (b.outcome.totalMs < a.outcome.totalMs ? b : a));
    }),
  );
  const runs = writerRuns(input, content);
  return {
    id: `best-${content}`,
    title: `The method that is done first: content that coders ${content === "text" ? "make much smaller" : "cannot make smaller"}`,
    says:
      `By link and by bytes changed of each dirty page, of a guest that dirties ${dirtyPagesPerSecond} pages a second; with the time that it ` +
      `takes. Empty: none converges. ${runs.length === 0 ? "No run of the lab is of this guest." : "In the second line: the shortest time of the lab's runs there that converged."}`,
    legend: methods.map((method, index) => ({ name: METHODS[method].title, box: `c${index}` })),
    heightPx: 300,
    draw(plot) {
      const [left, right] = plot.xSpan;
      const [bottom, top] = plot.ySpan;
      const [widthPx, heightPx] = [(right - left) / linksMbit.length, (bottom - top) / bytesPerPage.length];
      const boxes = cells.flatMap((row, i) =>
        row.map((best, j) => {
          const [x, y] = [left + j * widthPx, bottom - (i + 1) * heightPx];
          if (best === undefined)
            return `<rect class="ground" x="${px(x)}" y="${px(y)}" width="${px(widthPx)}" height="${px(heightPx)}" style="stroke:var(--grid)"/>`;
          const lab = measuredAt(runs, bytesPerPage[i]!, linksMbit[j]!);
          return cell(x, y, widthPx, heightPx, methods.indexOf(best.method), [
            formatMs(best.outcome.totalMs),
            ...(lab === undefined ? [] : [lab]),
          ]);
        }),
      );
      const xTicks = linksMbit.map((mbit, j) => ({
        px: left + (j + 0.5) * widthPx,
        label: formatBytesPerSecond(mbit * 125_000),
      }));
      const yTicks = bytesPerPage.map((bytes, i) => ({
        px: bottom - (i + 0.5) * heightPx,
        label: String(bytes),
      }));
      return (
        frame(
          plot,
          { ticks: xTicks, name: "link" },
          { ticks: yTicks, name: "bytes changed of each dirty page" },
        ) + boxes.join("")
      );
    },
  };
}

/** Text on a ground of its own: it is read on any of the colours, light or dark. */
function cell(
  x: number,
  y: number,
  widthPx: number,
  heightPx: number,
  series: number,
  texts: readonly string[],
): string {
  const lines = texts.map(
    (text, index) =>
      `<text class="value" x="${px(x + widthPx / 2)}" y="${px(y + heightPx / 2 + 4 + (index - (texts.length - 1) / 2) * 15)}" text-anchor="middle">${escapeHtml(text)}</text>`,
  );
  return `<rect class="c${series}" x="${px(x)}" y="${px(y)}" width="${px(widthPx)}" height="${px(heightPx)}"/>${lines.join("")}`;
}

function measuredAt(runs: readonly RunResult[], bytes: number, mbit: number): string | undefined {
  const times = runs
    .filter((run) => run.converged && bytesOf(run) === bytes && Math.abs(mbitOf(run) / mbit - 1) < 0.01)
    .flatMap((run) => run.metrics.get("totalMs") ?? []);
  return times.length === 0 ? undefined : `lab ${formatMs(Math.min(...times))}`;
}

function whereDeltaHurts(input: PlotInput): Figure {
  const ways = (["direct", "tunnel"] as const).flatMap((method) =>
    [64, 4096].map((bytes) => ({ method, bytes })),
  );
  const curves = ways.map(({ method, bytes }) =>
    HURT_MBIT.map((mbit) => {
      const [delta, plain] = [method, "vanilla" as const].map((name) =>
        input.simulate("random", bytes, name, HURT_RATE, mbit),
      );
      return { mbit, cpu: delta!.cpuMs / plain!.cpuMs };
    }),
  );
  const values = [1, ...curves.flat().map(({ cpu }) => cpu)];
  return {
    id: "hurts",
    title: "Where delta hurts: CPU time against standard pre-copy's",
    says:
      `CPU time at the source, of a guest that dirties ${HURT_RATE} pages a second of random content and converges by all of these: ` +
      "where whole pages change, or the link is fast, comparing is for nothing. Above 1 it costs more than standard pre-copy does. " +
      "The planner's; the lab's runs are of busier guests.",
    legend: ways.map(({ method, bytes }, index) => ({
      name: `${METHODS[method].title}, ${bytes} bytes changed`,
      line: lineClass(index),
    })),
    draw(plot: Plot) {
      const x = logAxis(HURT_MBIT[0], HURT_MBIT.at(-1)!, MBIT, plot.xSpan);
      const y = logAxis(Math.min(...values), Math.max(...values), { name: "", size: 1 }, plot.ySpan);
      const one = `<path class="limit" d="M${px(plot.xSpan[0])} ${px(y.at(1))}H${px(plot.xSpan[1])}"/>`;
      return (
        frame(
          plot,
          { ...x, name: "link, Mbit/s (logarithmic)" },
          { ...y, name: "CPU time, of standard pre-copy's (logarithmic)" },
        ) +
        one +
        curves
          .map((points, index) =>
            line(
              points.map(({ mbit, cpu }) => ({ x: x.at(mbit), y: y.at(cpu) })),
              lineClass(index),
            ),
          )
          .join("")
      );
    },
  };
}
