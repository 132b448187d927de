// `deltavee lab compare` and `deltavee lab report`: what was measured, from records alone. No root, no QEMU.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { Command } from "commander";
import { UsageError } from "../../base/errors.ts";
import { compareSides, comparisonMarkdown, comparisonText, readSides } from "../../lab/report/compare.ts";
import { evaluationMarkdown } from "../../lab/report/evaluation.ts";
import { forecastsMarkdown } from "../../lab/report/forecasts.ts";
import { labReportHtml } from "../../lab/report/html/page.ts";
import { readResults } from "../../lab/report/results.ts";
import { labReportText } from "../../lab/report/text.ts";
import { scenarios } from "../../lab/scenario/index.ts";
import { plain } from "../../report/text.ts";

/** Those that make them again, wherever the document is looked at. */
const EVALUATION_COMMAND = "deltavee lab report --evaluation docs/evaluation.md";
const FORECASTS_COMMAND = "deltavee lab report --forecasts docs/when-it-pays.md";

const COMPARE_HELP = "\nExample:\n  deltavee lab compare vanilla tunnel";
const REPORT_HELP = "\nExamples:\n  deltavee lab report\n  deltavee lab report --html page.html";

export function compareCommand(resultsDefault: string): Command {
  return new Command("compare")
    .description("put two sets of results, or two methods, side by side, run by run of the same setting")
    .argument("<a>", "a folder of records, an experiment, or a method")
    .argument("<b>", "the same kind of thing")
    .option("--results <folder>", "where experiments lie", resultsDefault)
    .option("--markdown", "as Markdown")
    .option("--json", "as JSON")
    .addHelpText("after", COMPARE_HELP)
    .action(async (a: string, b: string, options: { results: string; markdown?: true; json?: true }) => {
      const sides = await readSides(a, b, options.results);
      tellNotices(sides.notices);
      const comparison = compareSides(sides.a, sides.b, scenarios);
      const text = options.json
        ? `${JSON.stringify(comparison, null, 2)}\n`
        : options.markdown
          ? comparisonMarkdown(comparison)
          : comparisonText(comparison);
      process.stdout.write(text);
    });
}

export function reportCommand(resultsDefault: string): Command {
  return new Command("report")
    .description("draw tables of what was measured, and with --html a page with plots, from records alone")
    .argument("[folder]", "of records, or of experiments", resultsDefault)
    .option("--html <file>", "write one HTML file that loads nothing")
    .option("--evaluation <file>", "write the generated sections of docs/evaluation.md into this file")
    .option("--forecasts <file>", "write how far forecasts were off into its section of this file")
    .addHelpText("after", REPORT_HELP)
    .action(async (folder: string, options: { html?: string; evaluation?: string; forecasts?: string }) => {
      const results = await readResults(folder);
      tellNotices(results.notices);
      const { html, evaluation, forecasts } = options;
      if (html !== undefined) write(html, labReportHtml(results, scenarios));
      if (evaluation !== undefined) {
        const command = EVALUATION_COMMAND;
        write(evaluation, evaluationMarkdown(textOf(evaluation), results, { scenarios, command }));
      }
      if (forecasts !== undefined) {
        write(forecasts, forecastsMarkdown(textOf(forecasts), results.results, FORECASTS_COMMAND));
      }
      if (html === undefined && evaluation === undefined && forecasts === undefined) {
        process.stdout.write(labReportText(results, scenarios));
      }
    });
}

function tellNotices(notices: readonly string[]): void {
  for (const notice of notices) process.stderr.write(`Note: ${plain(notice)}\n`);
}

/** "" where there is none yet. */
const textOf = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : "");

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new UsageError(`Cannot write ${path}`, { cause });
  }
}
