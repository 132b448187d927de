// `deltavee pair`: two hosts without a certificate authority get to know each other, once, by a code that a person
// carries from one to the other. From then on each knows the other's certificate (decision 16).

import { hostname } from "node:os";
import { createInterface } from "node:readline/promises";
import { Command, Option } from "commander";
import { systemClock } from "../base/clock.ts";
import { CancelledError, LinkError, UsageError } from "../base/errors.ts";
import { RareNotices } from "../base/rare-notices.ts";
import { formatMs, parseMs } from "../base/units.ts";
import { assertPeerName, isPeerName, PairedKeys } from "../library/paired-keys.ts";
import { type Address, formatAddress, parseAddress } from "../link/address.ts";
import { onInterrupt } from "./common.ts";
import { newCode, normalCode } from "./pairing/exchange.ts";
import { type Met, meetAt, waitAt } from "./pairing/meeting.ts";
import { KEYS_DIR_HELP } from "./security.ts";

interface Options {
  listen?: Address;
  with?: Address;
  as?: string;
  list?: true;
  forget?: string;
  keysDir?: string;
  timeout: number;
  json?: true;
}

const TIMEOUT_MS_DEFAULT = 10 * 60_000;

const HELP = `
One host listens, and shows a code; on the other one the code is typed in (or comes on standard input: what stands on
the command line can be read by everybody on the host). The code is good for one try. Afterwards "deltavee migrate"
between the two needs no certificates: each side accepts the other one's key, and no other.

A host is known by the name that it is connected to: --with host2:4446 pairs with "host2", for
--to deltavee://host2:4445. The side that listens calls the other one as that calls itself. --as says another name.

Example:
  host2$ deltavee pair --listen 0.0.0.0:4446
  host1$ deltavee pair --with host2:4446
`;

export function pairCommand(): Command {
  const ways = ["listen", "with", "list", "forget"];
  const way = (option: Option) => option.conflicts(ways.filter((name) => name !== option.attributeName()));
  return new Command("pair")
    .description("make two hosts known to each other, for deltavee migrate without a certificate authority")
    .addOption(way(new Option("--listen <address>", "wait for the other host here")).argParser(parseAddress))
    .addOption(way(new Option("--with <address>", "the host that waits")).argParser(parseAddress))
    .addOption(way(new Option("--list", "the hosts that this one has been paired with")))
    .addOption(way(new Option("--forget <name>", "do not trust that host any more")))
    .option("--as <name>", "the name under which the other host is to be known here")
    .option("--keys-dir <folder>", KEYS_DIR_HELP)
    .addOption(
      new Option("--timeout <duration>", "how long to wait for the other host")
        .argParser(parseMs)
        .default(TIMEOUT_MS_DEFAULT, "10min"),
    )
    .option("--json", "print what happens, or who is known, as JSON")
    .addHelpText("after", HELP)
    .action(pair);
}

async function pair(options: Options): Promise<void> {
  const { listen, with: other, as, list, forget } = options;
  if (as !== undefined) assertPeerName(as);
  if (list) listPeers(PairedKeys.find(options.keysDir), options.json);
  else if (forget !== undefined) forgetPeer(PairedKeys.find(options.keysDir), forget);
  else if (listen !== undefined) await waitForOther(listen, options);
  else if (other !== undefined) await meetOther(other, options);
  else throw new UsageError("One of --listen, --with, --list and --forget is needed");
}

async function waitForOther(address: Address, options: Options): Promise<void> {
  const keys = PairedKeys.create(options.keysDir);
  const code = newCode();
  const notices = new RareNotices(systemClock, (text) => process.stderr.write(`pair: ${text}\n`));
  const meeting = await waitAt(address, { keys: keys.own(), code, name: ownName() }, (text) =>
    notices.say(`somebody was turned away: ${text}`),
  );
  const own = formatAddress(meeting.address);
  if (options.json) print({ type: "listening", address: own, code });
  else {
    process.stderr.write(`pair: waiting on ${own}\n`);
    process.stdout.write(`${code}\n`);
  }
  try {
    remember(keys, await within(meeting.met, options.timeout), options.as, options.json);
  } finally {
    meeting.close();
  }
}

async function meetOther(address: Address, options: Options): Promise<void> {
  if (address.kind !== "unix" && address.port === 0) throw new UsageError("Port 0 is nobody's");
  const known = options.as ?? (address.kind === "unix" ? undefined : address.host);
  // Not when the code has been used up for it.
  if (known !== undefined) assertPeerName(known);
  const keys = PairedKeys.create(options.keysDir);
  const code = normalCode(await askForCode());
  if (code === undefined) throw new UsageError("Not a code: four groups of four letters and digits");
  const met = await meetAt(address, { keys: keys.own(), code, name: ownName() });
  remember(keys, met, known, options.json);
}

function remember(
  keys: PairedKeys,
  { name, certificate, fingerprint }: Met,
  as: string | undefined,
  json: true | undefined,
): void {
  const known = as ?? name;
  const before = keys.certificateOf(known);
  // What a host calls itself is no reason to forget another one.
  if (as === undefined && before !== undefined && before !== certificate) {
    throw new UsageError(
      `A host with another key is known as "${known}" already: pair again with --as ${known} if that one has got new ` +
        "keys, or with --as and another name",
    );
  }
  keys.pin(known, certificate);
  if (json) print({ type: "paired", name: known, fingerprint: `sha256:${fingerprint}` });
  else process.stderr.write(`pair: this host and "${known}" know each other now (sha256:${fingerprint})\n`);
}

function listPeers(keys: PairedKeys | undefined, json: true | undefined): void {
  const peers = [...(keys?.identity()?.pinned ?? [])].map(([fingerprint, name]) => ({
    name,
    fingerprint: `sha256:${fingerprint}`,
  }));
  if (json) print({ peers });
  else for (const { name, fingerprint } of peers) process.stdout.write(`${name}\t${fingerprint}\n`);
}

function print(what: object): void {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

function forgetPeer(keys: PairedKeys | undefined, name: string): void {
  if (keys === undefined || !keys.peers().includes(name)) {
    throw new UsageError(`This host has not been paired with "${name}"`);
  }
  keys.forget(name);
}

/** From standard input: a person's, or a program's. */
async function askForCode(): Promise<string> {
  const lines = createInterface({ input: process.stdin });
  if (process.stdin.isTTY) process.stderr.write("Code that the other host shows: ");
  try {
    for await (const line of lines) return line;
    return "";
  } finally {
    lines.close();
  }
}

function within<Result>(promise: Promise<Result>, timeoutMs: number): Promise<Result> {
  return new Promise((resolve, reject) => {
    const release = onInterrupt(() => reject(new CancelledError("Cancelled before the other host came")));
    const timer = setTimeout(
      () =>
        reject(new LinkError("LINK_TIMEOUT", `The other host has not come within ${formatMs(timeoutMs)}`)),
      timeoutMs,
    );
    promise.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      release();
    });
  });
}

/** As file names and rules can have it. */
function ownName(): string {
  const name = hostname().replace(/[^A-Za-z0-9._-]/g, "-");
  return isPeerName(name) ? name : "host";
}
