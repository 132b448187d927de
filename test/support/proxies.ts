// `deltavee proxy` as an operator sets it up, on one machine: a proxy at the source, in tunnel mode one at the
// destination, and between them, or between it and the destination's QEMU, a link that `deltavee relay` makes slow.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseRecord } from "../../src/record/reader.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { destinationFor, listeningAddress, type Mode } from "./migration.ts";
import { type CliRun, runCli, tempFolder } from "./processes.ts";

export interface ProxyOptions {
  mode: Mode;
  /** Where the source's QEMU, or libvirt, connects. */
  listen: string;
  /** Where the destination's QEMU waits. */
  connect: string;
  rate?: string;
  delay?: string;
  sourceArguments?: readonly string[];
  destinationArguments?: readonly string[];
}

export interface Proxies {
  readonly source: CliRun;
  /** In tunnel mode. */
  readonly destination: CliRun | undefined;
  readonly relay: CliRun;
  /** Where the source's proxy listens. */
  readonly address: string;
  /** What the source's proxy has said so far, of all of its migrations. */
  events(): RecordEvent[];
  /** Run records in the order of their migrations; complete once the proxy has ended. */
  records(side: "source" | "destination"): RecordEvent[][];
  /** Resolves when the source's proxy has said that a migration is over, once more than before. */
  waitForSummary(): Promise<Extract<RecordEvent, { type: "summary" }>>;
  /** Resolves once so many bytes of the migration under way are on the wire. */
  waitForWireBytes(bytes: number): Promise<void>;
  /** Idempotent. */
  stop(): Promise<void>;
}

const SUMMARY_TIMEOUT_MS = 180_000;

export async function startProxies(options: ProxyOptions): Promise<Proxies> {
  const { mode, listen, connect, rate = "100mbit", delay = "1ms" } = options;
  const { sourceArguments = [], destinationArguments = [] } = options;
  const folder = tempFolder();
  const started: CliRun[] = [];
  const start = async (...commandArguments: string[]): Promise<CliRun> => {
    const run = await runCli(commandArguments);
    started.push(run);
    return run;
  };
  const stop = async () => {
    await Promise.all(started.map((run) => run.stop()));
    folder.remove();
  };
  const shown = ["--json", "--record", folder.path];
  try {
    let destination: CliRun | undefined;
    let to = connect;
    if (mode === "tunnel") {
      destination = await start(
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--connect",
        connect,
        ...shown,
        ...destinationArguments,
      );
      to = (await listeningAddress(destination)).replace(/^deltavee:\/\//, "");
    }
    const link = ["--rate", rate, "--delay", delay, "--json"];
    const relay = await start("relay", "--listen", "127.0.0.1:0", "--to", to, ...link);
    const target = destinationFor(mode, await listeningAddress(relay));
    const source = await start("proxy", "--listen", listen, "--to", target, ...shown, ...sourceArguments);
    const address = await listeningAddress(source);
    let seen = 0;
    return {
      ...{ source, destination, relay, address, stop },
      events: () => source.stdout.lines.flatMap(({ text }) => eventOf(text) ?? []),
      records: (side) =>
        readdirSync(folder.path)
          .filter((name) => name.endsWith(`${side}.ndjson`))
          .sort()
          .map((name) => parseRecord(readFileSync(join(folder.path, name), "utf8"), name).events.slice()),
      waitForSummary: async () => {
        const limits = { timeoutMs: SUMMARY_TIMEOUT_MS, from: seen };
        const line = await source.stdout.waitFor(
          ({ text }) => eventOf(text)?.type === "summary",
          "summary",
          limits,
        );
        seen = source.stdout.lines.indexOf(line) + 1;
        return eventOf(line.text) as Extract<RecordEvent, { type: "summary" }>;
      },
      waitForWireBytes: async (bytes) => {
        const isThere = ({ text }: { text: string }) => {
          const event = eventOf(text);
          return event?.type === "sample" && event.wireBytes >= bytes;
        };
        const limits = { timeoutMs: SUMMARY_TIMEOUT_MS, from: source.stdout.lines.length };
        await source.stdout.waitFor(isThere, `${bytes} bytes on the wire`, limits);
      },
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

function eventOf(text: string): RecordEvent | undefined {
  return text.startsWith("{") ? (JSON.parse(text) as RecordEvent) : undefined;
}
