// A real Chromium for tests of pages: the system's, driven by playwright-core. With DELTAVEE_REQUIRE_QEMU=1 in the
// environment (where everything is expected to be there) a missing one is an error.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { onTestFinished } from "vitest";

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
