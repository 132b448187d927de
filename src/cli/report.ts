// deltavee report: draws the summary of a migration again, from run records alone, and an HTML report on request.
// One record gets the full summary, several are put side by side.

import { writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { Command } from "commander";
import { UsageError } from "../base/errors.ts";
import { readRecordFile } from "../record/file-reader.ts";
import { eventsOf, type RecordedRun, runFigures } from "../report/figures.ts";
import { htmlReport } from "../report/html/page.ts";
import { sideBySideText, summaryText } from "../report/summary.ts";
import { plain } from "../report/text.ts";

const HELP = `
Examples:
  deltavee report run.ndjson --html report.html
  Two runs side by side:
    deltavee report standard.ndjson delta.ndjson
`;

export function reportCommand(): Command {
  return new Command("report")
    .summary("draw a migration again from its run record")
    .description(
      "Draws the summary of one migration, or of several side by side, from their run records alone.",
    )
    .argument("<record...>", "run records, as --record of migrate writes them")
    .option("--html <file>", "also write a report with plots: one HTML file that loads nothing")
    .option("--json", "print the figures as JSON instead of text")
    .addHelpText("after", HELP)
    .action(report);
}

async function report(paths: string[], options: { html?: string; json?: boolean }): Promise<void> {
  const records = [];
  for (const path of paths) records.push({ path, ...(await readRecordFile(path)) });
  for (const { notices } of records) {
    for (const notice of notices) process.stderr.write(`Note: ${plain(notice)}\n`);
  }
  const runs = labelled(records);

  if (options.html !== undefined) {
    await writeFile(options.html, htmlReport(runs)).catch((cause: unknown) => {
      throw new UsageError(`Cannot write the report to ${options.html}`, { cause });
    });
  }
  const [first, ...others] = runs;
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify(runs.map(runFigures), null, 2)}\n`);
  } else if (first !== undefined) {
    process.stdout.write(others.length === 0 ? summaryText(first.events) : sideBySideText(runs));
    if (options.html !== undefined) process.stdout.write(`\nReport: ${options.html}\n`);
  }
}

/** Runs by the labels they gave themselves, with the file's name where two would be the same. */
function labelled(records: readonly { path: string; events: RecordedRun["events"] }[]): RecordedRun[] {
  const labels = records.map(({ path, events }) => eventsOf(events, "run")[0]?.label ?? basename(path));
  return records.map(({ path, events }, index) => {
    const label = labels[index] ?? path;
    const isUnique = labels.indexOf(label) === labels.lastIndexOf(label);
    return { label: isUnique ? label : `${label} (${basename(path)})`, events };
  });
}
