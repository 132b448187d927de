// A real Chromium for tests of pages: the system's, driven by playwright-core. With DELTAVEE_REQUIRE_QEMU=1 in the
// environment (where everything is expected to be there) a missing one is an error.

import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { expect, onTestFinished } from "vitest";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const NAMES = ["chromium", "chromium-browser", "google-chrome"];

/** Undefined, said on the console, where there is none. @throws Error where there must be one */
export function findChromium(): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const path = folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find(isExecutable);
  if (path !== undefined) return path;
  const message = `Tests in a browser are left out: there is no ${NAMES.join(", ")}`;
  if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message);
  console.warn(message);
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Closed when the test has finished. */
export async function openBrowser(path: string): Promise<Browser> {
  // Chromium's sandbox refuses to run as root, which is what containers of CI have; it sees our own page only.
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath: path, args: sandbox });
  onTestFinished(() => browser.close());
  return browser;
}

export interface WatchedPage {
  page: Page;
  /** What the console said, and scripts that failed. */
  complaints: string[];
  /** Each host that something was asked of. */
  hosts: Set<string>;
}

export async function openWatchedPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const complaints: string[] = [];
  const hosts = new Set<string>();
  page.on("console", (message) =>
    complaints.push(`${message.type()}: ${message.text()} ${message.location().url}`),
  );
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  await page.goto(url);
  return { page, complaints, hosts };
}

/** Rules of WCAG 2.2 A and AA, and what else axe can tell to be wrong. */
export async function expectAccessible(page: Page): Promise<void> {
  await page.evaluate(readFileSync(AXE, "utf8"));
  const violations = await page.evaluate<string[]>(
    `axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>
      id + ": " + nodes.map(({ html, failureSummary }) => html + " " + failureSummary).join("\\n")))`,
  );
  expect(violations).toEqual([]);
}

/** Nothing is cut off, and nothing but a region of its own scrolls sideways. */
export async function expectFits(page: Page): Promise<void> {
  const [content, window] = await page.evaluate<number[]>(
    "[document.documentElement.scrollWidth, innerWidth]",
  );
  expect(content).toBeLessThanOrEqual(window!);
}
