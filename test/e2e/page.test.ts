// The live page in a real browser: of `deltavee demo --ui`, which moves a real VM twice, what is seen meanwhile and
// what is left at the end; records that are opened; what an update costs; and whether people can use it who do not
// see, or have no mouse.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { CDPSession, Page } from "playwright-core";
import { describe, expect, onTestFinished, test } from "vitest";
import { readRecordFile } from "../../src/record/file-reader.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { runFigures } from "../../src/report/figures.ts";
import { comparisonRows, comparisonVerdict } from "../../src/report/summary.ts";
import { serveLivePage } from "../../src/web/live-page.ts";
import { RunBoard, type RunFeed } from "../../src/web/run-board.ts";
import {
  expectAccessible,
  expectFits,
  findChromium,
  openBrowser,
  openWatchedPage,
} from "../support/browser.ts";
import { runCli, tempFolder } from "../support/processes.ts";
import { simulatedRecord } from "../support/simulated-record.ts";

const chromium = findChromium();
const TIMEOUT_MS = 180_000;

async function startPage(): Promise<{ board: RunBoard; url: string }> {
  const board = new RunBoard();
  const notice = (message: string) => expect.unreachable(message);
  const page = await serveLivePage({ board, host: "127.0.0.1", port: 0, notice });
  onTestFinished(() => page.close());
  return { board, url: page.url };
}

function play(feed: RunFeed, events: readonly RecordEvent[]): void {
  for (const event of events) feed.event(event);
}

/** Text of the first element that matches, as it is seen, once there is one: it may be another a moment later. */
async function textOf(page: Page, selector: string, pattern: RegExp): Promise<string> {
  const elements = page.locator(selector).filter({ visible: true });
  let texts: string[] = [];
  const matching = async () => {
    texts = (await elements.allInnerTexts()).map((text) => text.replace(/\s+/g, " ").trim());
    return texts.find((text) => pattern.test(text));
  };
  for (const endMs = performance.now() + TIMEOUT_MS; performance.now() < endMs; await sleep(50)) {
    const text = await matching();
    if (text !== undefined) return text;
  }
  throw new Error(`No ${selector} says ${pattern} within ${TIMEOUT_MS} ms; they say: ${texts.join(" | ")}`);
}

/** What the page has said once, while it followed a run. */
interface Moment {
  title: string;
  h1: string;
  /** Of the figures of the moment. */
  texts: string[];
  /** Of pictures with a line in them. */
  plots: string[];
}

/** The page keeps in `moments` what it shows: on a slow machine a moment is over before it has been asked for. */
async function keepMoments(page: Page): Promise<void> {
  await page.evaluate(`{
    const MOMENTS_MAX = 2000;
    const texts = (selector) =>
      [...document.querySelectorAll(selector)].map((found) => found.innerText.replace(/\\s+/g, " ").trim());
    moments = [];
    new MutationObserver(() => {
      if (moments.length < MOMENTS_MAX) moments.push({
        title: document.title,
        h1: texts("h1").join(),
        texts: texts("#now .lead, #now .tiles div, #now .latest"),
        plots: texts("figure:has(svg.wide path.line)"),
      });
    }).observe(document.documentElement, { subtree: true, childList: true, characterData: true });
  }`);
}

describe.skipIf(chromium === undefined)("in Chromium", () => {
  test("the demo's two migrations are watched as they go on, and stay when it has ended", async () => {
    const browser = await openBrowser(chromium!);
    const folder = tempFolder();
    const out = join(folder.path, "report");
    const small = ["--link", "30mbit", "--memory", "16MiB"];
    const demo = await runCli(["demo", "--ui", "127.0.0.1:0", "--out", out, ...small]);
    onTestFinished(async () => {
      await demo.stop();
      folder.remove();
    });
    const said = await demo.stderr.waitFor(
      ({ text }) => text.startsWith("Live page: "),
      "the page's address",
      {
        timeoutMs: TIMEOUT_MS,
      },
    );
    const url = said.text.slice("Live page: ".length);
    const { page, complaints, hosts } = await openWatchedPage(browser, url);

    await keepMoments(page);

    // Both are followed, one after the other, and their end.
    await textOf(page, "#connection", /^Deltavee has ended/);
    expect(await demo.exited).toEqual({ code: 0, signal: null });
    const moments = await page.evaluate<Moment[]>("moments");
    expect([...new Set(moments.map(({ h1 }) => h1))]).toEqual(expect.arrayContaining(["standard", "delta"]));
    // Under way: how far it is, what races what, the same plots as in a report, what was decided and why.
    const standard = moments.filter(({ h1 }) => h1 === "standard");
    const expectSaid = (pattern: RegExp) =>
      expect(standard.flatMap(({ texts }) => texts)).toContainEqual(expect.stringMatching(pattern));
    expectSaid(/^Iteration \d+, .* of the guest's memory is at the destination/);
    expectSaid(/^Rate on the link \d.*bit\/s limit 30\.0 Mbit\/s$/);
    expectSaid(/^Guest's heartbeat/);
    expectSaid(/because: /);
    expect(
      standard.some(({ plots }) => plots.some((text) => text.startsWith("Dirty rate against link rate"))),
    ).toBe(true);
    expect(standard.map(({ title }) => title)).toContainEqual(
      expect.stringMatching(/^\d+ %, iteration \d+ · standard · Deltavee$/),
    );

    const paths = ["standard", "delta"].map((label) => join(out, `${label}.ndjson`));
    const [first, delta] = await Promise.all(paths.map((path) => readRecordFile(path)));
    const figures = runFigures({ label: "delta", events: delta!.events });
    for (const { name, cells } of comparisonRows([figures])) {
      const row = page.locator("table.figures tr", {
        has: page.locator("th", { hasText: new RegExp(`^${name}$`) }),
      });
      await expect.poll(() => row.locator("td").first().textContent(), { message: name }).toBe(cells[0]);
    }
    await textOf(page, "#list li:first-child", /^delta completed · downtime .* in all$/);

    // Records are opened all the same, side by side, and bad ones refused with the reason.
    await page.setInputFiles("#files", paths);
    await textOf(page, "h1", /^standard, delta$/);
    const runs = [
      { label: "standard", events: first!.events },
      { label: "delta", events: delta!.events },
    ];
    const [, ...verdict] = comparisonVerdict(runs.map(runFigures));
    expect(await textOf(page, "#lead", /against/)).toContain(verdict[0]!.trim());
    const bad = join(folder.path, "bad.ndjson");
    writeFileSync(bad, readFileSync(paths[0]!, "utf8").replace('"phase":"iterating"', '"phase":"flying"'));
    await page.setInputFiles("#files", bad);
    expect(await textOf(page, "#problem", /bad/)).toMatch(
      /^Cannot read run record bad\.ndjson: line \d+: event "phase": phase: expected one of/,
    );
    expect(complaints).toEqual([]);
    expect([...hosts]).toEqual([new URL(url).host]);
  });

  test("a record is dropped on the page, and read there without being sent anywhere", async () => {
    const browser = await openBrowser(chromium!);
    const { url } = await startPage();
    const { page, complaints } = await openWatchedPage(browser, url);
    const text = simulatedRecord("standard")
      .map((event) => `${JSON.stringify(event)}\n`)
      .join("");
    const requests: string[] = [];
    await page.locator("#connection", { hasText: "live" }).waitFor();
    page.on("request", (request) => requests.push(`${request.method()} ${new URL(request.url()).pathname}`));
    const drag = await page.evaluateHandle(
      `((data) => (data.items.add(new File([${JSON.stringify(text)}], "dropped.ndjson")), data))(new DataTransfer())`,
    );
    await page.dispatchEvent("main", "dragenter", { dataTransfer: drag });
    expect(await page.locator("#drop").isVisible()).toBe(true);
    await page.dispatchEvent("main", "drop", { dataTransfer: drag });
    await textOf(page, "#lead", /Migration completed: the VM is running on the destination/);
    expect(await page.locator("#drop").isVisible()).toBe(false);
    // The browser's own wish may come late.
    expect(requests.filter((request) => request !== "GET /dashboard/icon.svg")).toEqual(["GET /events"]);
    expect(complaints).toEqual([]);
  });

  test("it is usable by keyboard and by those who do not see it, at each width, light and dark", async () => {
    const browser = await openBrowser(chromium!);
    const { board, url } = await startPage();
    const past = board.open({ label: "past <b>&amp; gone</b>" });
    play(past, simulatedRecord("standard"));
    const events = simulatedRecord("delta");
    const running = board.open({ label: "still going" });
    play(running, events.slice(0, -40));
    for (const [width, colorScheme] of [
      [1280, "light"],
      [390, "dark"],
    ] as const) {
      const viewport = { width, height: 800 };
      const { page, complaints } = await openWatchedPage(browser, url, { viewport, colorScheme });
      await textOf(page, ".tiles", /Rate on the link/);
      await page.locator("#report figure").first().waitFor();
      await expectFits(page);
      await expectAccessible(page);
      // Skip link, the button, the list (the newest first), the link to save: in this order, and to be seen.
      const focused: string[] = [];
      for (let step = 0; step < 5; step++) {
        await page.keyboard.press("Tab");
        const focus = page.locator(":focus");
        const outline = await page.evaluate<string>("getComputedStyle(document.activeElement).outlineStyle");
        const text = (await focus.allInnerTexts()).join("").split("\n")[0]!;
        focused.push(text);
        expect(outline).toBe("solid");
      }
      expect(focused).toEqual([
        ...["Skip to the migration", "Open a run record", "still going", "past <b>&amp; gone</b>"],
        "Save this run record",
      ]);
      await page.keyboard.press("Shift+Tab");
      await page.keyboard.press("Enter");
      await textOf(page, "h1", /^past/);
      await textOf(page, "#lead", /Migration completed/);
      await expectFits(page);
      await expectAccessible(page);
      expect(await page.locator("#list a[aria-current]:focus").count()).toBe(1);
      expect(complaints).toEqual([]);
      await page.context().close();
    }
    // What is said aloud is that it is over, and where the VM is.
    const { page } = await openWatchedPage(browser, `${url}#${running.id}`);
    await textOf(page, ".tiles", /Rate on the link/);
    play(running, events.slice(-40));
    await textOf(page, "#lead", /Migration completed/);
    expect(await page.locator("#said").textContent()).toBe(
      "still going: completed, the VM is running on destination",
    );
  });

  test("ten updates a second are little work", async () => {
    const browser = await openBrowser(chromium!);
    const { board, url } = await startPage();
    const feed = board.open({ label: "busy" });
    // Long enough for plots as full as they get.
    const events = simulatedRecord("standard");
    play(feed, events.slice(0, -200));
    const { page } = await openWatchedPage(browser, url);
    await textOf(page, ".tiles", /Rate on the link/);
    await page.locator("#report figure").first().waitFor();
    await page.evaluate(`counted = 0; new MutationObserver((records) => { counted += records.length; }).observe(
      document.getElementById("now"), { subtree: true, childList: true, characterData: true, attributes: true })`);
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    const whole = await browser.newBrowserCDPSession();
    await sleep(1500);
    const before = { ...(await metrics(session)), ...(await cpuSeconds(whole)) };
    const sample = events.findLast(({ type }) => type === "sample") as Extract<
      RecordEvent,
      { type: "sample" }
    >;
    const UPDATES = 80;
    for (let count = 1; count <= UPDATES; count++) {
      feed.event({
        ...sample,
        atMs: sample.atMs + count * 100,
        wireBytes: sample.wireBytes + count * 1e6,
        handedOverBytes: sample.handedOverBytes + count * 1.1e6,
        remainingBytes: Math.max(0, 5e7 - count * 5e5),
      });
      await sleep(100);
    }
    const after = { ...(await metrics(session)), ...(await cpuSeconds(whole)) };
    const mutations = await page.evaluate<number>("counted");
    const of = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
    const share = (name: string) => `${((of(name) / of("Timestamp")) * 100).toFixed(1)} %`;
    console.log(
      `${UPDATES} updates in ${of("Timestamp").toFixed(1)} s: ${share("ProcessTime")} of a core in the page's process ` +
        `(${share("ThreadTime")} in its main thread), ${share("GPU")} where it is painted; ${of("LayoutCount")} layouts, ` +
        `${mutations} mutations of the figures of the moment`,
    );
    // Each other one is drawn: a dozen texts and a bar; the plots every two seconds, and nothing twice.
    expect(mutations).toBeGreaterThan(UPDATES / 2);
    expect(mutations / UPDATES).toBeLessThan(12);
    expect(of("LayoutCount") / UPDATES).toBeLessThan(2);
  });
});

/** Processor time that Chromium's processes have used, by kind. */
async function cpuSeconds(session: CDPSession): Promise<Record<string, number>> {
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const used: Record<string, number> = {};
  for (const { type, cpuTime } of processInfo) used[type] = (used[type] ?? 0) + cpuTime;
  return used;
}

async function metrics(session: CDPSession): Promise<Record<string, number>> {
  const { metrics: all } = await session.send("Performance.getMetrics");
  return Object.fromEntries(all.map(({ name, value }) => [name, value]));
}
