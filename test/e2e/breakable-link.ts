// `migrate` and `receive`, and between them a link that can be taken away and given back.

import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { parseBytesPerSecond } from "../../src/base/units.ts";
import { type Address, parseAddress } from "../../src/link/address.ts";
import { Relay } from "../../src/link/relay.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import {
  destinationFor,
  type Ended,
  ended,
  listeningAddress,
  receiveArguments,
} from "../support/migration.ts";
import { type CliRun, freePort, runCli } from "../support/processes.ts";
import type { QemuVm } from "../support/qemu-vm.ts";

const SAMPLE_TIMEOUT_MS = 180_000;

export class BreakableLink {
  readonly #migrate: CliRun;
  readonly #receive: CliRun;
  readonly #open: () => Promise<Relay>;
  #relay: Relay;

  static async between(
    source: QemuVm,
    destination: QemuVm,
    rate: string,
    delayMs = 1,
    /** For `migrate`, and what both need (certificates). */
    migrateArguments: readonly string[] = [],
    security: readonly string[] = [],
  ): Promise<BreakableLink> {
    const receive = await runCli([
      ...["receive", ...receiveArguments(destination), "--json", "--reconnect-timeout", "15s"],
      ...security,
    ]);
    onTestFinished(async () => void (await receive.stop()));
    const to = parseAddress(await listeningAddress(receive));
    const listen: Address = { kind: "tcp", host: "127.0.0.1", port: await freePort() };
    const open = () => Relay.start({ listen, to, bytesPerSecond: parseBytesPerSecond(rate), delayMs });
    const relay = await open();
    const migrate = await runCli([
      ...["migrate", "--qmp", source.toolQmp.path, "--json"],
      ...["--to", destinationFor("tunnel", `127.0.0.1:${listen.port}`), ...migrateArguments],
      ...security,
    ]);
    onTestFinished(async () => void (await migrate.stop()));
    const link = new BreakableLink(migrate, receive, relay, open);
    onTestFinished(() => link.close());
    return link;
  }

  private constructor(migrate: CliRun, receive: CliRun, relay: Relay, open: () => Promise<Relay>) {
    this.#migrate = migrate;
    this.#receive = receive;
    this.#relay = relay;
    this.#open = open;
  }

  async waitForWireBytes(bytes: number): Promise<void> {
    await this.waitFor((event) => event.type === "sample" && event.wireBytes >= bytes, `${bytes} bytes sent`);
  }

  /** An event of `migrate`. */
  async waitFor(isIt: (event: RecordEvent) => boolean, what: string): Promise<void> {
    const timeoutMs = SAMPLE_TIMEOUT_MS;
    await this.#migrate.stdout.waitFor(({ text }) => isIt(JSON.parse(text) as RecordEvent), what, {
      timeoutMs,
    });
  }

  /** Connections break, and new ones are refused. */
  async close(): Promise<void> {
    await this.#relay.close();
  }

  async breakFor(ms: number): Promise<void> {
    await this.close();
    await sleep(ms);
    this.#relay = await this.#open();
  }

  async finish(): Promise<{ migrate: Ended; receive: Ended; events: RecordEvent[] }> {
    const migrate = await ended(this.#migrate);
    const receive = await ended(this.#receive);
    const events = this.#migrate.stdout.lines.map(({ text }) => JSON.parse(text) as RecordEvent);
    return { migrate, receive, events };
  }
}
