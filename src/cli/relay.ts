// `deltavee relay`: a link as slow and as long as asked, between two programs on one machine, without root.
// Only options and words are here; the link itself is link/relay.ts.

import { Command, Option } from "commander";
import { UsageError } from "../base/errors.ts";
import { formatBytes, formatBytesPerSecond, formatMs, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { type Address, formatAddress, parseAddress } from "../link/address.ts";
import { CONNECTIONS_MAX_DEFAULT, QUEUE_MS_DEFAULT, Relay } from "../link/relay.ts";

interface Options {
  listen: Address;
  to: Address;
  rate?: number;
  delay: number;
  queue: number;
  maxConnections: number;
  json?: true;
}

const HELP = `
Addresses: HOST:PORT, tcp:HOST:PORT, [::1]:PORT, unix:/path, deltavee://HOST:PORT. With port 0 a free one is
chosen and printed.

Each direction has the whole rate, which all connections share. The delay is one way, as in tc netem: --delay 20ms
makes a round trip 40 ms longer. When the queue is full the relay stops reading and the sender has to wait; nothing
is ever dropped. Making a connection is not delayed.

In front of the queue the kernel keeps more: on Linux up to 4 MB of what the sender has written over loopback TCP
(1.6 s at 20 Mbit/s), 0.2 MB over a unix socket. Where that matters, listen on a unix socket.

Examples:
  A link of 100 Mbit/s with a round trip of 40 ms to the QEMU that waits on port 4444:
    deltavee relay --listen 127.0.0.1:4000 --to 127.0.0.1:4444 --rate 100mbit --delay 20ms
  A narrow one between unix sockets, for a script that reads where it listens:
    deltavee relay --listen unix:/tmp/link.sock --to unix:/tmp/destination.sock --rate 20mbit --json
`;

function parseConnectionsMax(text: string): number {
  if (/^[1-9]\d{0,5}$/.test(text)) return Number(text);
  throw new UsageError(`Not a number of connections: "${text}" (expected e.g. ${CONNECTIONS_MAX_DEFAULT})`);
}

export function relayCommand(): Command {
  return new Command("relay")
    .description("pass connections on through a slow link: a rate, a delay, a bounded queue; no root needed")
    .requiredOption("--listen <address>", "where to listen", parseAddress)
    .requiredOption("--to <address>", "where each connection is passed on to", parseAddress)
    .option("--rate <rate>", "of each direction, e.g. 100mbit (default: not limited)", parseBytesPerSecond)
    .addOption(new Option("--delay <duration>", "one way, e.g. 20ms").argParser(parseMs).default(0, "none"))
    .addOption(
      new Option("--queue <duration>", "most that may wait for the link, in time at the rate")
        .argParser(parseMs)
        .default(QUEUE_MS_DEFAULT, `${QUEUE_MS_DEFAULT}ms`),
    )
    .option("--max-connections <n>", "at a time", parseConnectionsMax, CONNECTIONS_MAX_DEFAULT)
    .option("--json", "print what happens as JSON, one object a line")
    .addHelpText("after", HELP)
    .action(runRelay);
}

async function runRelay(options: Options): Promise<void> {
  const startMs = performance.now();
  const relay = await Relay.start({
    listen: options.listen,
    to: options.to,
    bytesPerSecond: options.rate,
    delayMs: options.delay,
    queueMs: options.queue,
    connectionsMax: options.maxConnections,
    onError: (error) => {
      const cause = error.cause instanceof Error && error.cause.message ? `: ${error.cause.message}` : "";
      process.stderr.write(`relay: ${error.message}${cause}\n`);
    },
  });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
  print(options.json, listeningLine(relay, options), {
    event: "listening",
    address: formatAddress(relay.address),
    to: formatAddress(options.to),
    bytesPerSecond: options.rate ?? null,
    delayMs: options.delay,
    queueMs: options.queue,
  });
  await stopped;
  await relay.close();
  const { bytesForward, bytesBackward, connectionsTotal } = relay;
  const elapsedMs = performance.now() - startMs;
  const carried = `${formatBytes(bytesForward)} forward, ${formatBytes(bytesBackward)} back`;
  const connections = connectionsTotal === 1 ? "1 connection" : `${connectionsTotal} connections`;
  print(options.json, `relay: carried ${carried}; ${connections} in ${formatMs(elapsedMs)}`, {
    event: "closed",
    bytesForward,
    bytesBackward,
    connectionsTotal,
    elapsedMs,
  });
}

function listeningLine(relay: Relay, options: Options): string {
  const rate = options.rate === undefined ? "no limit" : formatBytesPerSecond(options.rate);
  const delay = options.delay === 0 ? "no delay" : `${formatMs(options.delay)} each way`;
  return `relay: listening on ${formatAddress(relay.address)} -> ${formatAddress(options.to)}, ${rate}, ${delay}`;
}

function print(json: true | undefined, line: string, event: Record<string, unknown>): void {
  process.stdout.write(`${json ? JSON.stringify(event) : line}\n`);
}
