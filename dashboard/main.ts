// The live page: which run is looked at, and when what is drawn. The figures of this moment at most five times a
// second; the plots and tables below, which are those of `deltavee report`, every two seconds, and never for longer than
// a twentieth of the time; nothing while nobody sees the page.

import { courseHtml, outcomesHtml, summaryHtml } from "../src/report/html/page.ts";
import { escapeHtml } from "../src/report/html/svg.ts";
import { arrivedRatio } from "../src/report/progress.ts";
import type { RunOverview } from "../src/web/run-overview.ts";
import { Connection, type ConnectionState } from "./connection.ts";
import { listHtml } from "./list.ts";
import { nowHtml, percentText, stepText } from "./now.ts";
import { patch } from "./patch.ts";
import { type OpenedRecords, Records } from "./records.ts";
import { ShownRun } from "./shown-run.ts";

/** Figures that change faster than this are not read. */
const DRAW_MS_MIN = 200;
const REPORT_MS_MIN = 2000;
const REPORT_SHARE_MAX = 1 / 20;

const CONNECTION_TEXTS: Readonly<Record<ConnectionState, string>> = {
  connecting: "connecting",
  live: "live",
  lost: "no connection to Deltavee: trying again",
  ended: "Deltavee has ended; this is all that it said",
};

/** Of which the summary says more. */
const ENDS: ReadonlySet<string> = new Set(["completed", "failed", "cancelled"]);

const overviews = new Map<string, RunOverview>();
const records = new Records();
/** By whoever looks. */
let chosen: string | undefined;
/** What is looked at: an id of `overviews` or of `records.opened`. */
let current: string | undefined;
/** The run that is looked at, where it is a live one. */
let watched: ShownRun | undefined;
let opened: OpenedRecords | undefined;

/** As the reports' style has it. */
const narrow = matchMedia("(max-width: 560px)");
narrow.addEventListener("change", () => draw.soon("all"));

// ---- What comes

const connection = new Connection({
  state(state) {
    const text = element("connection");
    text.dataset.state = state;
    if (text.textContent !== CONNECTION_TEXTS[state]) text.textContent = CONNECTION_TEXTS[state];
    draw.soon("all");
  },
  list(all) {
    overviews.clear();
    for (const overview of all) overviews.set(overview.id, overview);
    readAddress();
    draw.soon("list");
  },
  run(overview) {
    overviews.set(overview.id, overview);
    choose();
    draw.soon("list");
  },
  gone(id) {
    overviews.delete(id);
    draw.soon("list");
  },
  record(event) {
    if (watched === undefined) return;
    watched.add(event);
    if (event.type === "summary") say(watched, `${event.outcome}, the VM is ${event.vm}`);
    else if (event.type === "phase" && !ENDS.has(event.phase)) say(watched, event.phase);
    draw.soon(event.type === "summary" ? "all" : "run");
  },
});

/** Follows what runs until somebody chooses. */
function choose(): void {
  if (chosen !== undefined) look(chosen);
  else if (opened === undefined) look(newest());
}

/** One that runs is looked at until it has ended. */
function newest(): string | undefined {
  if (current !== undefined && overviews.get(current)?.isRunning) return current;
  const all = [...overviews.values()];
  return (all.findLast(({ isRunning }) => isRunning) ?? all.at(-1))?.id;
}

/** The address names a run, where it is one that there is. */
function readAddress(): void {
  const id = location.hash.slice(1);
  if (overviews.has(id) || records.opened.has(id)) chosen = id;
  choose();
}

function look(id: string | undefined): void {
  if (id === current || id === undefined) return;
  current = id;
  opened = records.opened.get(id);
  watched = opened === undefined ? new ShownRun("") : undefined;
  connection.watch(opened === undefined ? id : undefined);
  draw.soon("all");
}

/** What a screen reader is told: that a phase has begun, and how it ended; figures are there to be asked for. */
function say(run: ShownRun, what: string): void {
  element("said").textContent = `${labelOf(run)}: ${what}`;
}

// ---- What is drawn

type Part = "list" | "run" | "all";

const draw = {
  wanted: new Set<Part>(),
  isWaiting: false,
  lastMs: 0,
  reportDueMs: 0,

  soon(part: Part): void {
    this.wanted.add(part);
    if (this.isWaiting) return;
    this.isWaiting = true;
    const waitMs = Math.max(0, this.lastMs + DRAW_MS_MIN - performance.now());
    // Frames come only while the page is seen.
    setTimeout(() => requestAnimationFrame(() => this.now()), waitMs);
  },

  now(): void {
    this.isWaiting = false;
    this.lastMs = performance.now();
    const has = (part: Part) => this.wanted.has(part) || this.wanted.has("all");
    if (has("list")) patch(element("list"), listHtml(overviews.values(), records.opened.values(), current));
    if (has("run")) this.run(this.wanted.has("all"));
    this.wanted.clear();
  },

  run(isUrgent: boolean): void {
    const runs = opened?.runs ?? (watched === undefined ? [] : [watched]);
    if (runs.length === 0) return;
    if (watched !== undefined) watched.label = labelOf(watched);
    patch(element("lead"), leadHtml(runs));
    patch(element("now"), watched !== undefined && watched.summary === undefined ? nowHtml(watched) : "");
    setTitle(runs);
    if (!isUrgent && this.lastMs < this.reportDueMs) {
      setTimeout(() => this.soon("run"), this.reportDueMs - this.lastMs);
      return;
    }
    const recorded = runs.filter(({ run }) => run !== undefined).map((run) => run.recorded);
    const isOver = watched?.summary !== undefined || opened !== undefined;
    const html = recorded.length === 0 ? "" : `${isOver ? summaryHtml(recorded) : ""}${courseHtml(recorded)}`;
    // Each picture comes in two sizes, of which one is seen.
    patch(element("report"), html, narrow.matches ? "svg.wide" : "svg.narrow");
    const tookMs = performance.now() - this.lastMs;
    this.reportDueMs = this.lastMs + Math.max(REPORT_MS_MIN, tookMs / REPORT_SHARE_MAX);
  },
};

function leadHtml(runs: readonly ShownRun[]): string {
  const isOver = opened !== undefined || watched?.summary !== undefined;
  const title = opened?.label ?? labelOf(runs[0]!);
  const outcomes = isOver ? outcomesHtml(runs.map(({ recorded }) => recorded)) : "";
  const notices = (opened?.notices ?? []).map((text) => `<p class="muted">${escapeHtml(text)}</p>`).join("");
  const canSave = opened === undefined && current !== undefined && !connection.hasEnded;
  const save = canSave
    ? `<p><a class="button" href="/runs/${current}.ndjson" download>Save this run record</a></p>`
    : "";
  const isCutOff = watched !== undefined && !isOver && connection.hasEnded;
  const cutOff = isCutOff ? `<p class="lead bad">Deltavee has ended without a summary of this run.</p>` : "";
  return `<h1>${escapeHtml(title)}</h1>${outcomes}${cutOff}${notices}${save}`;
}

function setTitle(runs: readonly ShownRun[]): void {
  const [run] = runs;
  if (run === undefined) return;
  const ratio = arrivedRatio(run.progress);
  const percent = run.summary === undefined && ratio !== undefined ? `${percentText(ratio)}, ` : "";
  const title = `${percent}${stepText(run)} · ${opened?.label ?? labelOf(run)} · Deltavee`;
  if (document.title !== title) document.title = title;
}

function labelOf(run: ShownRun): string {
  const overview = run === watched && current !== undefined ? overviews.get(current) : undefined;
  return overview?.label ?? (run.label === "" ? "Migration" : run.label);
}

// ---- What people do

async function open(files: readonly File[]): Promise<void> {
  const problem = element("problem");
  problem.hidden = true;
  try {
    const result = await records.open(files);
    if (result === undefined) return;
    location.hash = result.id;
    element("said").textContent = `Opened ${result.label}`;
  } catch (thrown) {
    problem.textContent = thrown instanceof Error ? thrown.message : String(thrown);
    problem.hidden = false;
  }
}

const input = element("files") as HTMLInputElement;
element("open").addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  const files = [...(input.files ?? [])];
  // The same file again is a change, too.
  input.value = "";
  void open(files);
});

function carriesFiles(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes("Files") ?? false;
}
for (const type of ["dragenter", "dragover"] as const) {
  document.addEventListener(type, (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  void open([...(event.dataTransfer?.files ?? [])]);
});
window.addEventListener("hashchange", readAddress);

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no element ${id}`);
  return found;
}

connection.watch(undefined);
