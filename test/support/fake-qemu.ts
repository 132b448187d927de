// A QEMU as far as its monitor shows it, on a unix socket: it has a state, and remembers what it was told to do.

import { createServer, type Server, type Socket } from "node:net";
import { LineSplitter } from "../../src/hypervisor/qemu/lines.ts";

/** As a migration leaves them behind. */
const OURS = { "max-bandwidth": 999_999_999_937, "downtime-limit": 1 };

/** `monitor`: path of its socket. */
export class FakeQemu {
  status: string;
  migration: string | undefined;
  /** Queries after a cancel before it has got there. */
  cancelTakes = 2;
  cancelEnds = { migration: "cancelled", status: "running" };
  parameters: Record<string, number> = { ...OURS };
  /** What its migration is at each look, once it goes on with the other side. */
  looks: string[] = [];
  uri: string | undefined;
  /** Everything it was told to do, not what it was asked. */
  readonly done: string[] = [];
  readonly server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(monitor: string, status: string, migration?: string) {
    this.status = status;
    this.migration = migration;
    this.server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      const qemu = { micro: 2, minor: 0, major: 10 };
      socket.write(`${JSON.stringify({ QMP: { version: { qemu, package: "" }, capabilities: [] } })}\r\n`);
      const lines = new LineSplitter(1 << 20);
      socket.on("data", (chunk) => {
        for (const line of lines.push(chunk)) {
          const { execute, arguments: given, id } = JSON.parse(line);
          socket.write(`${JSON.stringify({ return: this.#do(execute, given), id })}\r\n`);
          if (execute === "quit") this.close();
        }
      });
    }).listen(monitor);
  }

  close(): void {
    this.server.close();
    for (const socket of this.#sockets) socket.end();
  }

  #do(command: string, given: object): unknown {
    switch (command) {
      case "query-status":
        return { status: this.status, running: this.status === "running" };
      case "query-migrate":
        if (this.uri !== undefined) this.migration = this.looks.shift() ?? this.migration;
        if (this.migration === "cancelling" && --this.cancelTakes <= 0) {
          Object.assign(this, this.cancelEnds);
        }
        return this.migration === undefined ? {} : { status: this.migration };
      case "query-target":
        return { arch: "x86_64" };
      case "query-kvm":
        return { enabled: true, present: true };
      case "query-migrate-capabilities":
        return [];
      case "query-memory-size-summary":
        return { "base-memory": 1 << 29 };
      case "query-migrate-parameters":
        return this.parameters;
      case "qmp_capabilities":
        return {};
      default:
        this.done.push(command);
        if (command === "migrate-recover" || command === "migrate") {
          this.uri = (given as { uri: string }).uri;
        }
        if (command === "cont") this.status = "running";
        if (command === "migrate_cancel") this.migration = "cancelling";
        if (command === "migrate-set-parameters") Object.assign(this.parameters, given);
        return {};
    }
  }
}
