// `npm run audit`: known weaknesses of what is installed for use, as the registry knows them. Exit code 0: it knows none.
// 1: there are some. 3: it gave no answer, and why: that is no clean audit.

import { spawnSync } from "node:child_process";

const NO_ANSWER = 3;
const ANSWER_MS_MAX = 60_000;

/** @returns the exit code */
export function audit(root) {
  // "optional" is the compiler, too: valibot would use one if there were one, so npm does not count it to "dev" alone.
  const words = ["audit", "--omit=dev", "--omit=optional", "--json", "--fetch-retries=0"];
  const { stdout, stderr, error } = spawnSync("npm", words, {
    cwd: root,
    encoding: "utf8",
    timeout: ANSWER_MS_MAX,
  });
  const answer = parsed(stdout);
  const counts = answer?.metadata?.vulnerabilities;
  if (counts === undefined) {
    const why =
      error?.message ?? answer?.message ?? answer?.error?.summary ?? firstLine(stderr) ?? "it said nothing";
    console.error(`audit: NOT DONE, the registry has not answered: ${why}`);
    return NO_ANSWER;
  }
  for (const { name, severity, via } of Object.values(answer.vulnerabilities ?? {})) {
    const titles = via.map((each) =>
      typeof each === "string" ? `through ${each}` : `${each.title} (${each.url})`,
    );
    console.error(`audit: ${name}: ${severity}: ${titles.join("; ")}`);
  }
  const { dependencies } = answer.metadata;
  console.log(
    `audit: ${counts.total} known weaknesses in ${dependencies?.prod ?? "?"} packages that are installed for use`,
  );
  return counts.total === 0 ? 0 : 1;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    // npm says in plain text what it could not do.
    return undefined;
  }
}

function firstLine(text) {
  return text?.split("\n").find((line) => line.trim() !== "");
}
