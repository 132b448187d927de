import fc from "fast-check";
import { expect, test } from "vitest";
import { arbitraryEntries } from "../../../test/support/arbitrary-record.ts";
import { unbalancedTag } from "../../../test/support/markup.ts";
import { simulatedRecord } from "../../../test/support/simulated-record.ts";
import { writeRecord } from "../../../test/support/write-record.ts";
import type { RecordEvent } from "../../record/schema.ts";
import { htmlReport } from "./page.ts";

const runs = [
  { label: "standard", events: simulatedRecord("standard") },
  { label: "delta", events: simulatedRecord("delta") },
];

test("The page loads nothing and runs nothing", () => {
  const html = htmlReport(runs);
  expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
  expect(html).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|\ssrc=|\shref=|\son\w+=|https?:/i);
});

test("The same runs give the same page", () => {
  const again = runs.map(({ label }) => ({ label, events: simulatedRecord(label as "standard" | "delta") }));
  expect(htmlReport(again)).toBe(htmlReport(runs));
});

test("Every plot is there, with a title and a description for those who do not see it", () => {
  const html = htmlReport(runs);
  for (const id of [
    "heartbeat",
    "throughput",
    "race-0",
    "race-1",
    "iteration-bytes",
    "classes-0",
    "classes-1",
  ]) {
    for (const size of ["wide", "narrow"]) {
      expect(html).toContain(`aria-labelledby="${id}-${size}-t ${id}-${size}-d"`);
      expect(html).toMatch(
        new RegExp(`<title id="${id}-${size}-t">[^<]+</title><desc id="${id}-${size}-d">[^<]+</desc>`),
      );
    }
  }
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
});

test("Axes are labelled with units", () => {
  const html = htmlReport(runs);
  for (const name of [
    "time since the start (s)",
    "gap (ms, logarithmic)",
    "arrived (Mbit/s)",
    "rate (Mbit/s)",
    "sent (MB)",
    "share of pages (%)",
    "iteration (0: all of memory)",
  ]) {
    expect(html).toContain(`>${name}</text>`);
  }
});

test("Decisions stand with their reasons", () => {
  expect(htmlReport(runs)).toMatch(/<td>switchover: now<\/td><td>\d+ pages remain;/);
});

test("Markup in any text of a record stays text", () => {
  const evil = `</title></style></svg><script>alert("1")</script><img src=x onerror='1'>`;
  const events = runs[1]?.events.map((event): RecordEvent => {
    const texts = Object.entries(event).filter(([name, value]) => typeof value === "string" && isFree(name));
    return { ...event, ...Object.fromEntries(texts.map(([name]) => [name, evil])) } as RecordEvent;
  });
  const html = htmlReport([
    { label: evil, events: events ?? [] },
    { label: `${evil}2`, events: events ?? [] },
  ]);
  expect(html).toContain("&lt;script&gt;");
  expect(html).not.toMatch(/<script|<img/i);
  expect(unbalancedTag(html)).toBeUndefined();
});

function isFree(name: string): boolean {
  return [
    "startedAt",
    "deltavee",
    "hypervisor",
    "destination",
    "label",
    "reason",
    "choice",
    "subject",
    "message",
  ].includes(name);
}

test("Whatever records hold, the page is well formed, bounded and free of what is no number", () => {
  fc.assert(
    fc.property(fc.array(arbitraryEntries, { minLength: 1, maxLength: 4 }), (several) => {
      const html = htmlReport(
        several.map((entries, index) => ({ label: `<run ${index}>`, events: writeRecord(entries).events })),
      );
      expect(unbalancedTag(html)).toBeUndefined();
      expect(html).not.toMatch(/NaN|undefined|="[^"]*Infinity/);
      expect(html.length).toBeLessThan(1e6);
    }),
    { numRuns: 60 },
  );
});

test("A run of hours makes a page no larger than one of minutes", () => {
  const long: RecordEvent[] = runs[0]?.events.slice(0, 1) ?? [];
  const sample = runs[0]?.events.find(({ type }) => type === "sample");
  const iteration = runs[0]?.events.find(({ type }) => type === "iteration");
  if (sample === undefined || iteration === undefined) throw new Error("incomplete fixture");
  for (let index = 0; index < 30_000; index++) {
    const atMs = index * 200;
    long.push({ ...sample, atMs }, { ...iteration, atMs, iteration: index } as RecordEvent);
    long.push({ type: "heartbeat", atMs, counter: index, gapMs: 10 + (index % 7), side: "source" });
    long.push({ type: "decision", atMs, subject: "a", choice: "b", reason: "c" });
  }
  expect(htmlReport([{ label: "long", events: long }]).length).toBeLessThan(300_000);
});

test("Records without heartbeat, samples and iterations say so instead of drawing nothing", () => {
  const html = htmlReport([{ label: "empty", events: runs[0]?.events.slice(0, 2) ?? [] }]);
  expect(html).toContain("No heartbeat of the guest was watched");
  expect(html).toContain("too few samples");
  expect(html).toContain("no iteration");
});
