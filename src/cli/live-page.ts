// `--ui [ADDRESS]`: the live page of a command that has a migration to show.

import { Option } from "commander";
import { UsageError } from "../base/errors.ts";
import { parseAddress } from "../link/address.ts";
import type { LivePage } from "../web/live-page.ts";
import type { RunBoard } from "../web/run-board.ts";

export interface UiAddress {
  readonly host: string;
  readonly port: number;
  /** Nobody asked for this port: another one does as well. */
  readonly isDefault: boolean;
}

const UI_HOST_DEFAULT = "127.0.0.1";
const UI_PORT_DEFAULT = 9437;

export function uiOption(): Option {
  return new Option(
    "--ui [address]",
    `show the migration in a browser, on this host's ${UI_PORT_DEFAULT} or where told: PORT or HOST:PORT (no password: keep it on loopback)`,
  )
    .preset("")
    .argParser(parseUiAddress);
}

/** "9437", "127.0.0.1:9437", "[::1]:0"; "" is the standard address. @throws UsageError */
export function parseUiAddress(text: string): UiAddress {
  if (text === "") return { host: UI_HOST_DEFAULT, port: UI_PORT_DEFAULT, isDefault: true };
  const address = parseAddress(/^\d+$/.test(text) ? `${UI_HOST_DEFAULT}:${text}` : text);
  if (address.kind !== "tcp")
    throw new UsageError(`Not an address for a page: "${text}" (PORT or HOST:PORT)`);
  return { host: address.host, port: address.port, isDefault: false };
}

/** @throws UsageError when it cannot be served there */
export async function openLivePage(
  { host, port, isDefault }: UiAddress,
  board: RunBoard,
  notice: (message: string) => void,
): Promise<LivePage> {
  // Loaded when there is one to be served.
  const { serveLivePage } = await import("../web/live-page.ts");
  try {
    return await serveLivePage({ board, host, port, notice });
  } catch (thrown) {
    if (!isDefault || !(thrown instanceof UsageError)) throw thrown;
    return serveLivePage({ board, host, port: 0, notice });
  }
}

/** Where the page is, and what is to be known about it: for standard error. */
export function livePageText({ url, warning }: LivePage): string {
  return `Live page: ${url}\n${warning === undefined ? "" : `${warning}\n`}`;
}
