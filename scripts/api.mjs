#!/usr/bin/env node
// Writes docs/api.md anew: the declarations of the public API, with their comments, as the compiler has made them. Needs
// a build: `npm run build && node scripts/api.mjs`. With --check it only says whether that has to be; a test does.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const INTRODUCTION = `# The library

Made from the sources by \`scripts/api.mjs\`: not to be edited.

\`import ... from "deltavee"\` gives what stands below, with types, and nothing else of the package can be reached. It needs
Node 20.19 or newer, and is an ES module. [Examples](../examples) show it at work.

A migration is one call on either side. Both resolve when the guest has moved, and otherwise reject with a \`DeltaveeError\`,
whose \`code\` says why ([errors.md](errors.md)) and whose \`vm\` says where the guest is. While it works \`onEvent\` hears
what the run record will hold: phases, iterations, samples, decisions with their reasons
([their form](../src/record/schema.ts)).
`;

/** What the reader of docs/api.md is shown. */
function apiPage() {
  const index = join(root, "dist/library/index.d.ts");
  const sections = [];
  for (const [, names, path] of readFileSync(index, "utf8").matchAll(
    /export (?:type )?\{([^}]*)\} from "([^"]+)"/g,
  )) {
    const file = resolve(dirname(index), path.replace(/\.ts$/, ".d.ts"));
    const text = readFileSync(file, "utf8");
    for (const entry of names.split(",")) {
      const name = entry.trim().replace(/^type /, "");
      if (name !== "") sections.push({ name, code: declarationOf(name, text, file) });
    }
  }
  sections.sort((one, other) => rank(one) - rank(other) || (one.name < other.name ? -1 : 1));
  const body = sections.map(({ name, code }) => `## ${name}\n\n\`\`\`ts\n${code}\n\`\`\`\n`);
  return `${INTRODUCTION}\n${body.join("\n")}`;
}

/** Functions first, then what they are told and give, then the rest. */
function rank({ name, code }) {
  if (/declare function/.test(code)) return 0;
  if (/Options$|Result$/.test(name)) return 1;
  return /Error/.test(name) ? 3 : 2;
}

/** With its comment, without words that are the compiler's alone. */
function declarationOf(name, text, file) {
  const start = new RegExp(
    `^(?:/\\*\\*(?:(?!\\*/)[\\s\\S])*\\*/\\n)?export (?:declare )?(?:abstract )?(?:class|interface|type|function|const) ${name}\\b`,
    "m",
  ).exec(text);
  if (start === null) throw new Error(`${name} is not declared in ${file}`);
  const rest = text.slice(start.index);
  // The next declaration begins at the beginning of a line, and so does the comment before it.
  const end = rest
    .slice(start[0].length)
    .search(/\n(?=\/\*\*|export |declare |import |interface |type |const |\/\/# )/);
  const code = end === -1 ? rest : rest.slice(0, start[0].length + end);
  return code
    .replace(/^ {4}#private;\n/m, "")
    .replace(/^ {4}private constructor\(\);\n/m, "")
    .trimEnd();
}

const page = join(root, "docs/api.md");
if (!process.argv.includes("--check")) writeFileSync(page, apiPage());
else if (readFileSync(page, "utf8") !== apiPage()) {
  console.error("docs/api.md is not what the sources say: npm run build && node scripts/api.mjs");
  process.exit(1);
}
