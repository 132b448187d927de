// The page's own files: compiled from dashboard/ (and what it takes from src/report, src/record and src/base) into
// dist/page by scripts/build.mjs. All are read once, when the page is opened: no request touches the disk, and there is
// no path to be led astray by.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { DeltaveeError } from "../base/errors.ts";
import { jsonSchemaOf } from "../base/schema-json.ts";
import { recordEventSchema } from "../record/schema.ts";
import { STYLE } from "../report/html/style.ts";
import { refuse, type WebHandler } from "./server.ts";

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
  json: "application/json",
};
/** In index.html: where the modules are named that the browser is to fetch all at once. */
const PRELOADS = "<!-- modules -->";

interface PageFile {
  readonly type: string;
  readonly body: Buffer;
  readonly zipped: Buffer;
  readonly tag: string;
}

/** @throws DeltaveeError INTERNAL when the page was not built */
export function pageFiles(): WebHandler {
  const files = readPage(pageFolder());
  return ({ url, headers }, response) => {
    const file = files.get(url.pathname);
    if (file === undefined) return refuse(response, 404, "Nothing is there");
    response.setHeader("ETag", file.tag);
    // Kept, but asked about each time: a newer Deltavee brings a newer page. Not so the icon: browsers want it again
    // and again, also when Deltavee has ended and the page still stands there.
    response.setHeader("Cache-Control", url.pathname.endsWith(".svg") ? "max-age=86400" : "no-cache");
    response.setHeader("Vary", "Accept-Encoding");
    if (headers["if-none-match"] === file.tag) {
      response.statusCode = 304;
      response.end();
      return;
    }
    response.setHeader("Content-Type", file.type);
    const isZipped = /\bgzip\b/.test(String(headers["accept-encoding"] ?? ""));
    if (isZipped) response.setHeader("Content-Encoding", "gzip");
    response.end(isZipped ? file.zipped : file.body);
  };
}

/** By path. "/style.css" is that of the reports and the page's own; the page checks records by "/record-schema.json". */
function readPage(folder: string): Map<string, PageFile> {
  const texts = new Map<string, string>();
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const path = join(folder, name);
    if (statSync(path).isFile()) texts.set(`/${name.replaceAll("\\", "/")}`, readFileSync(path, "utf8"));
  }
  const modules = [...texts.keys()].filter((path) => path.endsWith(".js")).sort();
  const preloads = modules.map((path) => `<link rel="modulepreload" href="${path}">`).join("\n");
  texts.set("/", text(texts, "/dashboard/index.html").replace(PRELOADS, preloads));
  texts.delete("/dashboard/index.html");
  texts.set("/style.css", `${STYLE}\n${text(texts, "/dashboard/page.css")}`);
  texts.delete("/dashboard/page.css");
  texts.set("/record-schema.json", JSON.stringify(jsonSchemaOf(recordEventSchema)));
  return new Map([...texts].map(([path, body]) => [path, pageFile(path, body)]));
}

function text(texts: ReadonlyMap<string, string>, path: string): string {
  const found = texts.get(path);
  if (found === undefined)
    throw new DeltaveeError("INTERNAL", `The page lacks ${path}: run "npm run build" first`);
  return found;
}

function pageFile(path: string, content: string): PageFile {
  const extension = path.endsWith("/") ? "html" : path.slice(path.lastIndexOf(".") + 1);
  const body = Buffer.from(content);
  return {
    type: TYPES[extension] ?? "text/plain; charset=utf-8",
    body,
    zipped: gzipSync(body),
    tag: `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`,
  };
}

/** Run from the sources (vitest) it is in dist/, too: browsers take no TypeScript. */
function pageFolder(): string {
  const isSource = import.meta.url.endsWith(".ts");
  const folder = fileURLToPath(new URL(isSource ? "../../dist/page/" : "../page/", import.meta.url));
  if (statSync(join(folder, "dashboard/main.js"), { throwIfNoEntry: false }) === undefined) {
    throw new DeltaveeError("INTERNAL", `The live page is missing: run "npm run build" first`);
  }
  return folder;
}
