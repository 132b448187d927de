// `npm run bench`: measures the parts of the fast path, section by section, prints tables of ratios and says which
// goals were reached. bench:peers, beside it, compares whole migrations with QEMU's own.

import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { Argument, Command, CommanderError } from "commander";
import { toError, UsageError } from "../src/base/errors.ts";
import { replaceSection } from "../src/report/section.ts";
import { codecSection } from "./codec.ts";
import { entropySection } from "./entropy.ts";
import { kernelsSection } from "./kernel-section.ts";
import { memorySection } from "./memory.ts";
import { pipelineSection } from "./pipeline.ts";
import {
  runSetting,
  type SectionOptions,
  type SectionResult,
  sectionAsMarkdown,
  sectionAsText,
} from "./report.ts";
import { samplingSection } from "./sampling.ts";
import { streamSection } from "./stream.ts";
import { tlsSection } from "./tls.ts";

const SECTIONS: Readonly<Record<string, (options: SectionOptions) => Promise<SectionResult>>> = {
  kernels: kernelsSection,
  codec: codecSection,
  entropy: entropySection,
  stream: streamSection,
  pipeline: pipelineSection,
  memory: memorySection,
  tls: tlsSection,
  sampling: samplingSection,
};

interface Options {
  turns: number;
  rebuildPages?: true;
  json?: string;
  markdown?: string;
}

const program = new Command("bench")
  .description("The parts of the fast path, each thing against what it must beat, in one run.")
  .addArgument(new Argument("[sections...]", "which of them").choices(Object.keys(SECTIONS)))
  .option("--turns <count>", "how often each thing is measured, in turn with the others", parseTurns, 7)
  .option("--rebuild-pages", "take new snapshots of a VM, a Node and a Redis instead of the kept ones")
  .option("--json <file>", "append everything measured, one JSON object a line")
  .option("--markdown <file>", "write each section into its place in this file")
  .exitOverride();

try {
  await main(program.parse().args, program.opts<Options>());
} catch (thrown) {
  const error = toError(thrown);
  const isUsage = error instanceof UsageError || error instanceof CommanderError;
  if (error instanceof UsageError) console.error(`bench: ${error.message}`);
  else if (!(error instanceof CommanderError)) console.error(error);
  process.exitCode = error instanceof CommanderError && error.exitCode === 0 ? 0 : isUsage ? 2 : 1;
}

async function main(names: readonly string[], options: Options): Promise<void> {
  const setting = runSetting(process.argv.slice(2));
  for (const name of names.length === 0 ? Object.keys(SECTIONS) : names) {
    const result = await SECTIONS[name]!({
      turns: options.turns,
      rebuildPages: options.rebuildPages ?? false,
    });
    console.log(sectionAsText(result));
    if (options.json !== undefined) {
      for (const line of result.lines) {
        appendFileSync(options.json, `${JSON.stringify({ ...setting, ...line })}\n`);
      }
    }
    if (options.markdown !== undefined) {
      const before = existsSync(options.markdown) ? readFileSync(options.markdown, "utf8") : "";
      const content = sectionAsMarkdown(result, setting);
      writeFileSync(options.markdown, replaceSection(before, `bench ${result.name}`, content));
    }
  }
}

function parseTurns(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new UsageError(`Not a number of turns: "${text}"`);
  return Number(text);
}
