import { expect, test } from "vitest";
import { labRecord } from "../../test/support/lab-records.ts";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { parseRecord } from "../record/reader.ts";
import { runFigures } from "./figures.ts";
import { htmlReport } from "./html/page.ts";
import { sideBySideText, summaryText } from "./summary.ts";

const { events } = parseRecord(
  labRecord({
    lab: { scenario: "video", method: "vanilla", run: 2, parameters: { bitrate: 3 }, forcedAfterMs: 20_000 },
    verdict: {
      ...{ converged: false, forced: true, succeeded: false, failures: ["12 frames lost"] },
      metrics: { frozenMs: 7900, slowdownShare: 0.12, sourceResidentBytesMax: 1.2e9 },
    },
    series: [{ series: "frames per second", unit: "1/s", values: [25, 24, 0] }],
  }),
  "test",
);

test("The summary of a record of the lab says what was run, how it was judged and what clients saw", () => {
  const text = summaryText(events);
  expect(text).toMatch(
    /scenario +video by vanilla, run 2; 100\.0 Mbit\/s, round trip 0 ms, loss 0\.0%; .*QEMU 10\.0; bitrate 3/,
  );
  expect(text).toMatch(/judged +FAILED; forced to end after 20\.0 s/);
  expect(text).toMatch(/failures +12 frames lost/);
  expect(text).toMatch(/measured .*frozenMs 7\.9 s; slowdownShare 12\.0%; sourceResidentBytesMax 1\.2 GB/);
  expect(text).toMatch(/clients saw +frames per second 24 \(0–25\) 1\/s/);
  expect(text).toMatch(/used +qemu at the source 900 ms CPU, 1\.0 GB of memory/);
});

test("Side by side, what was judged stands for the runs of the lab only", () => {
  const runs = [
    { label: "lab", events },
    { label: "other", events: simulatedRecord("delta") },
  ];
  expect(sideBySideText(runs)).toMatch(/judged +FAILED; forced to end after 20\.0 s +-/);
  const html = htmlReport(runs);
  expect(html).toContain("<h2>The lab</h2>");
  expect(html).toMatch(/<h3>frames per second, 1\/s<\/h3>/);
  expect(html).toContain("<td>12 frames lost</td>");
});

test("Other records say nothing of the lab", () => {
  const run = { label: "x", events: simulatedRecord("delta") };
  expect(runFigures(run).lab).toBeUndefined();
  expect(htmlReport([run])).not.toContain("The lab");
});
