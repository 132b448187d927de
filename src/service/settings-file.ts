// The configuration file of `deltavee serve`: YAML (of which JSON is a part), read into settings, or refused with every
// mistake named by file, line and key. Also the file as it is with nothing changed, for an operator to begin with.

import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type Document, isMap, isPair, isScalar, LineCounter, parseDocument } from "yaml";
import { DeltaveeError, toError } from "../base/errors.ts";
import { checkedWhole, type Mistake } from "../base/schema.ts";
import { jsonSchemaOf } from "../base/schema-json.ts";
import { describeSettings, type Settings, settingsSchema } from "./settings.ts";

const FILE_BYTES_MAX = 1024 * 1024;
/** Of mistakes that are said at once. */
const MISTAKES_MAX = 20;
/** Paths in it are as from the folder that the file is in. */
const PATHS = [
  ["control"],
  ["stateDir"],
  ["recordDir"],
  ["tls", "dir"],
  ["tls", "keysDir"],
  ["incoming", "qmp"],
] as const;

/** @throws DeltaveeError CONFIG_INVALID */
export function readSettings(file: string): Settings {
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > FILE_BYTES_MAX) throw new Error(`It is longer than ${FILE_BYTES_MAX} bytes`);
    text = readFileSync(file, "utf8");
  } catch (thrown) {
    throw invalid(`Cannot read ${file}: ${toError(thrown).message}`);
  }
  return parseSettings(text, file);
}

/** `file`: its name, for errors and for paths in it. @throws DeltaveeError CONFIG_INVALID */
export function parseSettings(text: string, file: string): Settings {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number | undefined) => {
    if (offset === undefined) return file;
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const [broken] = document.errors;
  if (broken !== undefined) throw invalid(`${at(broken.pos[0])}: ${broken.message}`);
  let value: unknown;
  try {
    value = withoutEmpty(document.toJS({ maxAliasCount: 100 }) ?? {});
  } catch (thrown) {
    throw invalid(`${file}: ${toError(thrown).message}`);
  }
  const { value: settings, mistakes } = checkedWhole(settingsSchema, value);
  if (mistakes !== undefined) throw invalid(mistakesText(mistakes, document, at));
  return withPathsResolved(settings, dirname(resolve(file)));
}

/** A part of which nothing is left but its name, all its keys being comments, is left out. */
function withoutEmpty(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, part]) => part !== null));
}

function mistakesText(
  mistakes: readonly Mistake[],
  document: Document,
  at: (offset?: number) => string,
): string {
  const said = mistakes.map(({ path, text }) => {
    const name = path.length === 0 ? "the file" : path.join(".");
    return `${at(offsetOf(document, path))}: ${name}: ${text}`;
  });
  const more = said.length > MISTAKES_MAX ? [`and ${said.length - MISTAKES_MAX} more`] : [];
  return [...said.slice(0, MISTAKES_MAX), ...more].join("\n  ");
}

/** Of the key where there is one, else of what it stands in. */
function offsetOf(document: Document, path: readonly string[]): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const name of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === name);
      if (!isPair(pair) || !isScalar(pair.key)) break;
      offset = pair.key.range?.[0] ?? offset;
      node = pair.value;
    } else break;
  }
  return offset;
}

function withPathsResolved(settings: Settings, folder: string): Settings {
  const resolved = structuredClone(settings) as unknown as Record<string, unknown>;
  for (const path of PATHS) {
    const last = path.at(-1)!;
    const holder = path.length === 1 ? resolved : (resolved[path[0]] as Record<string, unknown>);
    const value = holder[last];
    if (typeof value === "string") holder[last] = resolve(folder, value);
  }
  return resolved as unknown as Settings;
}

function invalid(message: string): DeltaveeError {
  return new DeltaveeError("CONFIG_INVALID", message);
}

/** The file that says what is so without one: each key as a comment with what it is for. */
export function defaultFileText(): string {
  const parts = new Map<string, string[]>();
  for (const { key, default: written, description } of describeSettings()) {
    const [first, second] = key.split(".");
    const lines = parts.get(second === undefined ? "" : first!) ?? [];
    parts.set(second === undefined ? "" : first!, lines);
    const indent = second === undefined ? "" : "  ";
    lines.push(...wrapped(description, 100).map((line) => `${indent}# ${line}`));
    const name = second ?? first!;
    lines.push(written === undefined ? `${indent}# ${name}:` : `${indent}${name}: ${written}`);
  }
  return [
    "# Configuration of deltavee serve. What is left out is as it stands here. Paths are as from this file's folder.",
    ...[...parts].flatMap(([name, lines]) => {
      return name === "" ? ["", ...lines] : ["", `${name}:`, ...lines];
    }),
    "",
  ].join("\n");
}

/** JSON Schema of the file, for editors. */
export function settingsJsonSchema(): unknown {
  return jsonSchemaOf(settingsSchema);
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
