// `npm run sim`: one seed with a log of what happened, or many with what they came to.

import { parseArgs } from "node:util";
import { simulate } from "./simulation.ts";
import { Statistics } from "./statistics.ts";

const USAGE = `usage: npm run sim -- --seed N            one migration, with a log of what happened
       npm run sim -- --seeds N [--from N]  many, with what they came to
`;
/** More failures say no more. */
const FAILURES_MAX = 10;

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});

if (values.seed !== undefined) {
  const seed = wholeNumber(values.seed);
  const { plan, violations } = await simulate(seed, { log: (line) => console.log(line) });
  console.log(JSON.stringify(plan, null, 1));
  for (const { rule, atMs } of violations) console.log(`VIOLATION at ${atMs.toFixed(3)} ms: ${rule}`);
  process.exitCode = violations.length === 0 ? 0 : 1;
} else if (values.seeds !== undefined) {
  const from = wholeNumber(values.from);
  const statistics = new Statistics();
  for (let seed = from; seed < from + wholeNumber(values.seeds); seed++) {
    statistics.add(await simulate(seed));
    if (statistics.failures.length >= FAILURES_MAX) break;
  }
  const { failures } = statistics;
  if (values.json) console.log(JSON.stringify({ counts: statistics.counts(), failures }));
  else {
    console.log(statistics.text());
    for (const { seed, rule } of failures)
      console.error(`seed ${seed}: ${rule}\n  npm run sim -- --seed ${seed}`);
  }
  process.exitCode = failures.length === 0 ? 0 : 1;
} else {
  process.stderr.write(USAGE);
  process.exitCode = 2;
}

function wholeNumber(text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= 0) return number;
  process.stderr.write(USAGE);
  process.exit(2);
}
