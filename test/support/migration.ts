// One migration as an operator makes it: the built program's own commands, each a process, over a link that
// `deltavee relay` makes slow. Starts, watches and ends them; which VMs they are for, and what must come of it,
// is for the caller to say.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseRecord } from "../../src/record/reader.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { type CliRun, type Exit, freePort, runCli, tempFolder } from "./processes.ts";
import type { QemuVm } from "./qemu-vm.ts";

const LISTENING_TIMEOUT_MS = 120_000;
const PROGRESS_TIMEOUT_MS = 180_000;
const FINISH_TIMEOUT_MS = 180_000;

export type Mode = "direct" | "tunnel";

export interface MigrationOptions {
  mode: Mode;
  source: QemuVm;
  /** Started with `incoming: "defer"`, in either mode. */
  destination: QemuVm;
  /** Of the link, each way; as the relay's --rate takes it. */
  rate?: string;
  /** One way, as the relay's --delay takes it. */
  delay?: string;
  migrateArguments?: readonly string[];
  receiveArguments?: readonly string[];
}

/** What a command said when it ended. */
export interface Ended extends Exit {
  stderr: string;
}

export interface Finished {
  migrate: Ended;
  /** In tunnel mode. */
  receive: Ended | undefined;
  /** What the link has carried. */
  link: { bytesForward: number; bytesBackward: number; connectionsTotal: number };
  /** The run record of `migrate`, read back from its file. */
  events: readonly RecordEvent[];
  /** What is amiss with the record itself. */
  recordNotices: readonly string[];
}

export interface Migration {
  readonly migrate: CliRun;
  readonly receive: CliRun | undefined;
  readonly relay: CliRun;
  /** Where both commands keep their state. */
  readonly stateFolder: string;
  /** Resolves once at least so many bytes are on the wire while the guest still runs at the source. */
  waitForWireBytes(bytes: number): Promise<void>;
  /** Waits for the commands to end by themselves and gathers what is left of them. */
  finish(): Promise<Finished>;
  /** Ends what still runs. Idempotent. */
  stop(): Promise<void>;
}

export async function startMigration(options: MigrationOptions): Promise<Migration> {
  const { mode, source, destination } = options;
  const folder = tempFolder();
  const recordFile = join(folder.path, "run.ndjson");
  const stateFolder = join(folder.path, "state");
  const stateArguments = ["--state-dir", stateFolder];
  const started: CliRun[] = [];
  const start = async (...commandArguments: string[]): Promise<CliRun> => {
    const run = await runCli(commandArguments);
    started.push(run);
    return run;
  };
  const stop = async (): Promise<void> => {
    await Promise.all(started.map((run) => run.stop()));
    folder.remove();
  };
  try {
    let receive: CliRun | undefined;
    let to: string;
    if (mode === "tunnel") {
      const asked = options.receiveArguments ?? [];
      receive = await start(
        "receive",
        ...receiveArguments(destination),
        ...stateArguments,
        "--json",
        ...asked,
      );
      to = await listeningAddress(receive);
    } else {
      to = `tcp:127.0.0.1:${await freePort()}`;
      await destination.qmp.execute("migrate-incoming", { uri: to });
    }
    const relay = await startRelay(start, to, options);
    const relayAddress = await listeningAddress(relay);
    const migrate = await start(
      ...["migrate", "--qmp", source.toolQmp.path, "--to", destinationFor(mode, relayAddress)],
      ...["--record", recordFile, ...stateArguments, "--json", ...(options.migrateArguments ?? [])],
    );
    return {
      migrate,
      receive,
      relay,
      stateFolder,
      waitForWireBytes: async (bytes) => {
        await migrate.stdout.waitFor(
          ({ text }) => {
            const event = parseEvent(text);
            return event?.type === "sample" && event.wireBytes >= bytes;
          },
          `sample with ${bytes} bytes on the wire`,
          { timeoutMs: PROGRESS_TIMEOUT_MS },
        );
      },
      finish: async () => {
        const migrateEnded = await ended(migrate);
        const receiveEnded = receive === undefined ? undefined : await ended(receive);
        await relay.stop();
        const record = parseRecord(readFileSync(recordFile, "utf8"), recordFile);
        return {
          migrate: migrateEnded,
          receive: receiveEnded,
          link: carried(relay),
          events: record.events,
          recordNotices: record.notices,
        };
      },
      stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

/** A port that the kernel chooses; the monitor of a QEMU that waits for a migration. */
export function receiveArguments(destination: QemuVm): string[] {
  return ["--listen", "127.0.0.1:0", "--qmp", destination.toolQmp.path];
}

/** Where a relay or a receive, started with --json, says that it listens. */
export async function listeningAddress(run: CliRun): Promise<string> {
  let address = "";
  await run.stdout.waitFor(
    ({ text }) => {
      const said: { type?: string; event?: string; address?: string } = JSON.parse(text);
      address = said.address ?? "";
      return said.type === "listening" || said.event === "listening";
    },
    "address to connect to",
    { timeoutMs: LISTENING_TIMEOUT_MS },
  );
  return address;
}

export function destinationFor(mode: Mode, address: string): string {
  const hostAndPort = address.replace(/^(?:tcp:|deltavee:\/\/)/, "");
  return mode === "tunnel" ? `deltavee://${hostAndPort}` : `tcp:${hostAndPort}`;
}

/** How a command ended. It must do so by itself, soon. */
export async function ended(run: CliRun): Promise<Ended> {
  const late = new Promise<never>((_resolve, reject) => {
    const timer = setTimeout(() => {
      const said = `${run.stdout.tail()}\n${run.stderrTail()}`;
      reject(new Error(`A command did not end within ${FINISH_TIMEOUT_MS} ms. It said:\n${said}`));
    }, FINISH_TIMEOUT_MS);
    void run.exited.then(() => clearTimeout(timer));
  });
  const exit = await Promise.race([run.exited, late]);
  return { ...exit, stderr: run.stderrTail() };
}

async function startRelay(
  start: (...commandArguments: string[]) => Promise<CliRun>,
  to: string,
  { rate = "100mbit", delay = "1ms" }: MigrationOptions,
): Promise<CliRun> {
  const target = to.replace(/^deltavee:\/\//, "");
  return start(
    ...["relay", "--listen", "127.0.0.1:0", "--to", target, "--rate", rate, "--delay", delay, "--json"],
  );
}

function carried(relay: CliRun): Finished["link"] {
  const last = relay.stdout.lines.at(-1)?.text ?? "";
  const said: Finished["link"] & { event: string } = JSON.parse(last);
  if (said.event !== "closed") throw new Error(`The relay did not close in good order: ${last}`);
  return said;
}

/** An event as --json prints it; undefined for anything else. */
function parseEvent(text: string): RecordEvent | undefined {
  return text.startsWith("{") ? (JSON.parse(text) as RecordEvent) : undefined;
}
