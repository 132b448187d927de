// `deltavee proxy`: carries migrations of QEMUs that somebody else manages, e.g. libvirt: "virsh migrate" as it is, with
// --migrateuri naming where the proxy listens. Only options and words are here; proxy/ does it.

import { mkdirSync } from "node:fs";
import { Command, Option } from "commander";
import { toError, UsageError } from "../base/errors.ts";
import { parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../engine/switchover/switchover.ts";
import { type AllowRule, parseAllow } from "../library/admission.ts";
import { isLoopback, type SecurityOptions } from "../library/identity.ts";
import { RECONNECT_MS_DEFAULT } from "../library/run.ts";
import { type Address, parseAddress } from "../link/address.ts";
import type { DisplayOptions } from "./common.ts";
import { serveDestination } from "./proxy/destination-side.ts";
import { serveSource } from "./proxy/source-side.ts";
import { parseUser, type UserRule } from "./proxy/users.ts";
import { ALLOW_HELP, withSecurityOptions } from "./security.ts";

export interface ProxyOptions extends DisplayOptions, SecurityOptions {
  listen: Address;
  maxDowntime: number;
  reconnectTimeout: number;
  maxBandwidth?: number;
  cacheSize?: number;
  tlsHostname?: string;
  allow: AllowRule[];
  allowUser: UserRule[];
}

interface Options extends ProxyOptions {
  to?: Address;
  connect?: Address;
}

const HELP = `
At the source it listens at the path or loopback port that "virsh migrate --migrateuri" names, where libvirt takes it
for the destination's QEMU, and carries what comes (--to): deltavee://HOST:PORT to the proxy of the destination's host
(tunnel), or tcp:HOST:PORT, unix:PATH to the destination's QEMU itself (direct), where nothing of Deltavee's runs.
At the destination it waits for the source's proxy and connects to the QEMU that libvirt has started there (--connect).

At the source a TCP port can be reached by every user of the host: whoever is neither root (libvirtd), nor the proxy's own
user, nor named by --allow-user is turned away, as the kernel's table of connections tells it.

It never speaks to a monitor. libvirt decides where the guest runs, by its own protocol: until the destination's QEMU has
loaded everything and the source's has been told so, each failure closes the connection, and the guest goes on at the
source. How long it stands still is libvirt's to allow (virsh migrate-setmaxdowntime); with libvirt 11 and QEMU 8.1 or
later the proxy also keeps QEMU from stopping the guest before --max-downtime is within reach.

It serves one migration after the other, until SIGTERM; one that comes while another is under way is refused, and its guest
goes on: several at a time need a proxy, and a port or path, each. A tunnel is secured as with deltavee migrate and receive. What
cannot be carried is refused: parallel channels (--parallel), post-copy, TLS of QEMU's own. Recipes: docs/libvirt.md.

Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage. A migration that fails does not end it.

Examples:
  On the destination's host, then on the source's, then wherever virsh is:
    deltavee proxy --listen 0.0.0.0:4445 --connect tcp:127.0.0.1:49990
    deltavee proxy --listen 127.0.0.1:49990 --to deltavee://host2:4445
    virsh migrate --live vm qemu+ssh://host2/system --migrateuri tcp://127.0.0.1:49990 --listen-address 127.0.0.1
  Nothing at the destination:
    deltavee proxy --listen 127.0.0.1:49990 --to tcp:host2:49990
    virsh migrate --live vm qemu+ssh://host2/system --migrateuri tcp://127.0.0.1:49990 --listen-address 0.0.0.0
`;

export function proxyCommand(): Command {
  const command = new Command("proxy")
    .description("carry migrations that libvirt, or whoever manages QEMU, begins")
    .requiredOption(
      "--listen <address>",
      "where libvirt (source) or the other proxy (destination) connects",
      parseAddress,
    )
    .option(
      "--to <address>",
      "source: deltavee://HOST:PORT (tunnel); tcp:HOST:PORT or unix:PATH (direct)",
      parseAddress,
    )
    .option(
      "--connect <address>",
      "destination: where its QEMU waits, tcp:127.0.0.1:PORT or unix:PATH",
      parseAddress,
    )
    .addOption(
      new Option("--max-downtime <duration>", "source: longest time the guest may stand still, e.g. 100ms")
        .argParser(parseDowntime)
        .default(DOWNTIME_MS_MAX_DEFAULT, `${DOWNTIME_MS_MAX_DEFAULT}ms`),
    )
    .option("--max-bandwidth <rate>", "source: send no faster than this, e.g. 100mbit", parseBytesPerSecond)
    .option(
      "--cache-size <size>",
      "source: memory for the page cache (default: what the guest needs, at most a quarter of the host's)",
      parseBytes,
    )
    .addOption(
      new Option(
        "--reconnect-timeout <duration>",
        "how long a tunnel that broke is tried to be resumed, or waited for",
      )
        .argParser(parseMs)
        .default(RECONNECT_MS_DEFAULT, `${RECONNECT_MS_DEFAULT / 1000}s`),
    )
    .option(
      "--tls-hostname <name>",
      "source: whom the destination's certificate must be for, if not for the host of --to",
    )
    .option("--allow <rule>", `destination: ${ALLOW_HELP}`, parseAllow, [])
    .option(
      "--allow-user <name>",
      "source: who may connect to a TCP port besides root and this proxy's own user: a name, an id, or * for everybody",
      parseUser,
      [],
    )
    .option("--record <folder>", "write the run record of each migration into this folder (NDJSON)")
    .option("--json", "print the events of the runs as JSON, one a line")
    .option("--quiet", "print nothing but errors");
  return withSecurityOptions(command).addHelpText("after", HELP).action(proxy);
}

async function proxy({ to, connect, ...options }: Options): Promise<void> {
  if ((to === undefined) === (connect === undefined)) {
    throw new UsageError("Either --to, at the source, or --connect, at the destination, is needed");
  }
  if (options.record !== undefined) prepareFolder(options.record);
  if (to !== undefined) {
    checkSource(to, options);
    await serveSource({ ...options, to });
    return;
  }
  checkDestination(connect!, options);
  await serveDestination({ ...options, connect: connect! });
}

function checkSource(to: Address, { listen, allow }: ProxyOptions): void {
  if (!isLoopback(listen)) {
    throw new UsageError(
      "At the source, listen where only this host comes in: unix:PATH, or a port of 127.0.0.1",
    );
  }
  if (to.kind !== "unix" && to.port === 0) throw new UsageError("Port 0 is not a destination");
  if (allow.length > 0) throw new UsageError("--allow is for the destination (--connect)");
}

function checkDestination(
  connect: Address,
  { listen, maxBandwidth, cacheSize, tlsHostname, allow, allowUser }: ProxyOptions,
): void {
  if (connect.kind === "deltavee" || (connect.kind !== "unix" && connect.port === 0)) {
    throw new UsageError("--connect names where QEMU waits: tcp:127.0.0.1:PORT or unix:PATH");
  }
  if ([maxBandwidth, cacheSize, tlsHostname].some((option) => option !== undefined)) {
    throw new UsageError("--max-bandwidth, --cache-size and --tls-hostname are for the source (--to)");
  }
  if (allowUser.length > 0) throw new UsageError("--allow-user is for the source (--to)");
  const named = allow.find(({ vm }) => vm !== undefined);
  if (named !== undefined) {
    const text = `--allow '${named.peer}=${named.vm}': a stream does not tell which VM it is. Name the host alone`;
    throw new UsageError(text);
  }
  const isItself =
    listen.kind !== "unix" &&
    connect.kind !== "unix" &&
    listen.port === connect.port &&
    listen.host === connect.host;
  if (isItself) throw new UsageError("--connect names where this proxy listens itself");
}

/** @throws UsageError */
function prepareFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw new UsageError(`Cannot create the folder for run records, ${path}: ${toError(cause).message}`, {
      cause,
    });
  }
}

function parseDowntime(text: string): number {
  const value = parseMs(text);
  if (value > 0) return value;
  throw new UsageError(`Must be above zero: "${text}"`);
}
