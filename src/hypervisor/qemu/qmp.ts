// QMP client: talks to one monitor of one QEMU over a unix or TCP socket, one JSON object per line each way.
// Says what was asked, what QEMU answered and what it reported; knows nothing of how a migration is run.
// Protocol: QEMU, docs/interop/qmp-spec. Commands and events: qmp-types.ts.
//
// The difference that matters to a caller: QmpCommandError means that QEMU refused, QmpInterruptedError that
// nobody knows whether it did as asked, QMP_UNAVAILABLE that it was never asked.

import type { Duplex } from "node:stream";
import { assert } from "../../base/assert.ts";
import { type Clock, systemClock } from "../../base/clock.ts";
import { DeltaveeError, QmpCommandError, QmpInterruptedError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import { type Address, connect as connectSocket, formatAddress } from "../../link/address.ts";
import { LineSplitter } from "./lines.ts";
import {
  greetingSchema,
  messageSchema,
  QMP_EVENTS,
  QMP_RESULTS,
  type QmpArguments,
  type QmpCommand,
  type QmpEvent,
  type QmpEventName,
  type QmpMessage,
  type QmpResult,
} from "./qmp-types.ts";

/** QEMU's longest answers (its schema) are some 100 kB; a longer line than this is not QMP. */
export const QMP_LINE_BYTES_MAX = 4 * 1024 * 1024;
/** Commands whose answer is awaited at the same time. */
export const QMP_PENDING_COMMANDS_MAX = 256;
const CONNECT_TIMEOUT_MS = 5_000;
const COMMAND_TIMEOUT_MS = 10_000;
/** Of a line that is not QMP an error message shows at most this much. */
const QUOTED_CHARACTERS_MAX = 120;

/** QEMU's monitors speak on unix and plain TCP sockets. */
export type QmpAddress = Exclude<Address, { kind: "deltavee" }>;

export interface QemuVersion {
  major: number;
  minor: number;
  micro: number;
  /** Whoever built it, e.g. "Debian 1:7.2+dfsg-7"; may be empty. */
  package: string;
}

export interface QmpOptions {
  /** For connecting; and as long again for the greeting and the negotiation. */
  connectTimeoutMs?: number;
  /** Default for every command. */
  commandTimeoutMs?: number;
  clock?: Clock;
}

interface ExecuteOptions {
  timeoutMs?: number;
}

type ExecuteRest<Command extends QmpCommand> =
  QmpArguments<Command> extends Record<string, never>
    ? [commandArguments?: QmpArguments<Command>, options?: ExecuteOptions]
    : [commandArguments: QmpArguments<Command>, options?: ExecuteOptions];

interface PendingCommand {
  command: QmpCommand;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  cancelTimeout: () => void;
}

type AnyListener = (event: QmpEvent<never>) => void;

export class QmpClient {
  readonly address: QmpAddress;
  /** Resolves, once, if the connection ends in any way but `close()`. Never rejects. */
  readonly lost: Promise<DeltaveeError>;
  readonly #clock: Clock;
  readonly #commandTimeoutMs: number;
  readonly #socket: Duplex;
  readonly #lines = new LineSplitter(QMP_LINE_BYTES_MAX);
  readonly #pending = new Map<number, PendingCommand>();
  readonly #listeners = new Map<QmpEventName, Set<AnyListener>>();
  /** Those who must hear of the end besides the commands: `waitForEvent`, and `connect` before the greeting. */
  readonly #endListeners = new Set<(reason: DeltaveeError) => void>();
  #version: QemuVersion | undefined;
  #onGreeting: () => void = () => {};
  #onLost: (reason: DeltaveeError) => void = () => {};
  #lastId = 0;
  /** Why the connection ended; undefined while it lives. */
  #ended: DeltaveeError | undefined;

  /**
   * Connects, reads the greeting and leaves negotiation mode. A monitor serves one client at a time: QEMU lets a
   * second one connect but does not greet it, which ends here in the time-out.
   * @throws DeltaveeError QMP_UNAVAILABLE
   */
  static async connect(address: QmpAddress, options: QmpOptions = {}): Promise<QmpClient> {
    const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const socket = await connectSocket(address, timeoutMs).catch((thrown: unknown) => {
      throw unavailable(address, "cannot connect", thrown);
    });
    return QmpClient.over(socket, address, options);
  }

  /** The same, connected already. `address` is for messages. @throws DeltaveeError QMP_UNAVAILABLE */
  static async over(socket: Duplex, address: QmpAddress, options: QmpOptions = {}): Promise<QmpClient> {
    const clock = options.clock ?? systemClock;
    const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const client = new QmpClient(address, socket, clock, options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS);
    const greeted = new Promise<void>((resolve, reject) => {
      client.#onGreeting = resolve;
      client.#endListeners.add(reject);
    });
    const cancelTimeout = clock.after(timeoutMs, () =>
      client.#end(
        client.#unavailable(
          `not ready for commands within ${timeoutMs} ms (is another client connected to it?)`,
        ),
      ),
    );
    try {
      await greeted;
      await client.execute("qmp_capabilities", {}, { timeoutMs });
      return client;
    } catch (thrown) {
      client.#end(client.#unavailable("QEMU did not leave QMP negotiation", thrown));
      throw client.#ended;
    } finally {
      cancelTimeout();
      client.#endListeners.clear();
    }
  }

  private constructor(address: QmpAddress, socket: Duplex, clock: Clock, commandTimeoutMs: number) {
    this.address = address;
    this.#clock = clock;
    this.#commandTimeoutMs = commandTimeoutMs;
    this.lost = new Promise((resolve) => {
      this.#onLost = resolve;
    });
    this.#socket = socket;
    this.#socket.on("data", (chunk) => this.#onData(chunk));
    this.#socket.on("error", (error) => this.#end(this.#unavailable("the socket failed", error)));
    this.#socket.on("close", () => this.#end(this.#unavailable("QEMU closed the connection")));
  }

  /** Of the QEMU at the other end, from its greeting. */
  get version(): QemuVersion {
    assert(this.#version !== undefined, "a client is handed out only after the greeting");
    return this.#version;
  }

  /**
   * Sends a command and awaits its answer. Commands may overlap; QEMU runs them in the order of the calls.
   * @throws QmpCommandError QEMU refused it
   * @throws QmpInterruptedError the connection ended, or the time ran out, before the answer
   * @throws DeltaveeError QMP_UNAVAILABLE not sent: the connection has ended before
   * @throws DeltaveeError HYPERVISOR_INCOMPATIBLE done, but the answer is not of the form we know
   */
  async execute<Command extends QmpCommand>(
    command: Command,
    ...[commandArguments, options]: ExecuteRest<Command>
  ): Promise<QmpResult<Command>> {
    if (this.#ended !== undefined) throw this.#unavailable(`${command} was not sent`, this.#ended);
    if (this.#pending.size >= QMP_PENDING_COMMANDS_MAX) {
      throw this.#unavailable(`${command} was not sent: ${this.#pending.size} commands wait for an answer`);
    }
    const id = ++this.#lastId;
    const timeoutMs = options?.timeoutMs ?? this.#commandTimeoutMs;
    const result = await new Promise((resolve, reject) => {
      const cancelTimeout = this.#clock.after(timeoutMs, () => {
        this.#pending.delete(id);
        reject(new QmpInterruptedError(command, `no answer within ${timeoutMs} ms`));
      });
      this.#pending.set(id, { command, resolve, reject, cancelTimeout });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: commandArguments ?? {}, id })}\n`);
    });
    const schema: v.GenericSchema = QMP_RESULTS[command];
    const answer = v.checked(schema, result);
    if (answer.mistake === undefined) return answer.value as QmpResult<Command>;
    throw new DeltaveeError("HYPERVISOR_INCOMPATIBLE", `QEMU answered ${command} in a form we do not know`, {
      cause: new v.SchemaError(answer.mistake),
    });
  }

  /** Calls `listener` (which must not throw) for each such event, until the returned function is called. */
  on<Name extends QmpEventName>(name: Name, listener: (event: QmpEvent<Name>) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /**
   * The next event `name` for which `predicate` holds. Call it before the command that causes the event: the
   * event may arrive in the same packet as the answer. A promise nobody awaits any more does no harm.
   * @throws DeltaveeError HYPERVISOR_FAILED it did not come in time
   * @throws DeltaveeError QMP_UNAVAILABLE the connection has ended
   */
  waitForEvent<Name extends QmpEventName>(
    name: Name,
    predicate: (event: QmpEvent<Name>) => boolean,
    timeoutMs: number,
  ): Promise<QmpEvent<Name>> {
    const waited = new Promise<QmpEvent<Name>>((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(this.#ended);
        return;
      }
      const settle = (action: () => void) => {
        unsubscribe();
        cancelTimeout();
        this.#endListeners.delete(onEnd);
        action();
      };
      const onEnd = (reason: DeltaveeError) => settle(() => reject(reason));
      const unsubscribe = this.on(name, (event) => {
        if (predicate(event)) settle(() => resolve(event));
      });
      const cancelTimeout = this.#clock.after(timeoutMs, () => {
        const message = `QEMU at ${formatAddress(this.address)} did not report ${name} within ${timeoutMs} ms`;
        settle(() => reject(new DeltaveeError("HYPERVISOR_FAILED", message)));
      });
      this.#endListeners.add(onEnd);
    });
    // The command that should have caused the event may throw first; its caller then never awaits this promise,
    // and Node would end the process for the rejection.
    waited.catch(() => {});
    return waited;
  }

  /** Ends the connection; QEMU and its guest do not notice. Commands under way are interrupted. Idempotent. */
  close(): void {
    this.#onLost = () => {};
    this.#end(this.#unavailable("it was closed on our side"));
  }

  #onData(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    let lines: string[];
    try {
      lines = this.#lines.push(chunk);
    } catch (thrown) {
      this.#endAsInvalid("an over-long line", "", thrown);
      return;
    }
    for (const line of lines) {
      if (this.#ended === undefined && line !== "") this.#onLine(line);
    }
  }

  #onLine(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (thrown) {
      this.#endAsInvalid("not JSON", line, thrown);
      return;
    }
    if (this.#version === undefined) {
      const greeting = v.checked(greetingSchema, value);
      if (greeting.mistake !== undefined) {
        this.#endAsInvalid("not a QMP greeting", line, new v.SchemaError(greeting.mistake));
        return;
      }
      const { version } = greeting.value.QMP;
      this.#version = { ...version.qemu, package: version.package };
      this.#onGreeting();
      return;
    }
    const checked = v.checked(messageSchema, value);
    if (checked.mistake !== undefined) {
      this.#endAsInvalid("not a QMP message", line, new v.SchemaError(checked.mistake));
      return;
    }
    const message = checked.value;
    if ("event" in message) this.#onEvent(message, line);
    else this.#onAnswer(message, line);
  }

  #onAnswer(message: Exclude<QmpMessage, { event: string }>, line: string): void {
    const { id } = message;
    if (id === undefined || id < 1 || id > this.#lastId) {
      this.#endAsInvalid("an answer to nothing that was asked", line);
      return;
    }
    const pending = this.#pending.get(id);
    // The answer to a command whose time has run out: its caller has been told that the outcome is unknown.
    if (pending === undefined) return;
    this.#pending.delete(id);
    pending.cancelTimeout();
    if ("error" in message) {
      pending.reject(new QmpCommandError(pending.command, message.error.class, message.error.desc));
    } else {
      pending.resolve(message.return);
    }
  }

  #onEvent(message: Extract<QmpMessage, { event: string }>, line: string): void {
    const receivedMs = this.#clock.nowMs();
    if (!Object.hasOwn(QMP_EVENTS, message.event)) return;
    const name = message.event as QmpEventName;
    const schema: v.GenericSchema = QMP_EVENTS[name];
    const data = v.checked(schema, message.data ?? {});
    if (data.mistake !== undefined) {
      this.#endAsInvalid(`not a ${name} event`, line, new v.SchemaError(data.mistake));
      return;
    }
    const qemuTimeMs = message.timestamp.seconds * 1000 + message.timestamp.microseconds / 1000;
    // A copy: listeners come and go while they are called.
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      listener({ name, data: data.value, qemuTimeMs, receivedMs } as QmpEvent<never>);
    }
  }

  /** After a line that is not QMP nothing that follows can be trusted to belong to what was asked. */
  #endAsInvalid(what: string, line: string, cause?: unknown): void {
    const shown = line === "" ? "" : `: ${JSON.stringify(line.slice(0, QUOTED_CHARACTERS_MAX))}`;
    this.#end(this.#unavailable(`QEMU sent ${what}${shown}`, cause));
  }

  #end(reason: DeltaveeError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#socket.destroy();
    for (const { command, reject, cancelTimeout } of this.#pending.values()) {
      cancelTimeout();
      reject(
        new QmpInterruptedError(command, "the QMP connection ended before the answer", { cause: reason }),
      );
    }
    this.#pending.clear();
    for (const listener of [...this.#endListeners]) listener(reason);
    this.#onLost(reason);
  }

  #unavailable(what: string, cause?: unknown): DeltaveeError {
    return unavailable(this.address, what, cause);
  }
}

function unavailable(address: QmpAddress, what: string, cause: unknown): DeltaveeError {
  const message = `QMP at ${formatAddress(address)} is not available: ${what}`;
  return new DeltaveeError("QMP_UNAVAILABLE", message, { cause });
}
