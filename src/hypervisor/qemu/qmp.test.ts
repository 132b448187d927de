import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { VirtualClock } from "../../base/clock.ts";
import { DeltaveeError, QmpCommandError, QmpInterruptedError } from "../../base/errors.ts";
import { LineSplitter } from "./lines.ts";
import { QMP_LINE_BYTES_MAX, QMP_PENDING_COMMANDS_MAX, QmpClient, type QmpOptions } from "./qmp.ts";

// As Debian's QEMU 7.2 sends it.
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}\r\n';

interface Command {
  execute: string;
  arguments: unknown;
  id: number;
}

/** What the fake QEMU does with a command after negotiation; the default is to answer `{}`. */
type Behaviour = (command: Command, socket: Socket) => void;

const answer = (socket: Socket, id: number, result: unknown) =>
  socket.write(`${JSON.stringify({ return: result, id })}\r\n`);
const event = (name: string, data?: unknown) =>
  `${JSON.stringify({ timestamp: { seconds: 1_700_000_000, microseconds: 250_000 }, event: name, data })}\r\n`;

let folder: string;
let server: Server;
let sockets: Socket[];
let received: Command[];
let clients: QmpClient[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "deltavee-qmp-"));
  sockets = [];
  received = [];
  clients = [];
});

afterEach(async () => {
  for (const client of clients) client.close();
  for (const socket of sockets) socket.destroy();
  if (server?.listening) await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

const address = () => ({ kind: "unix" as const, path: join(folder, "qmp.sock") });

async function listen(onConnection: (socket: Socket) => void): Promise<void> {
  server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(address().path, resolve));
}

async function fakeQemu(
  behave: Behaviour = (command, socket) => answer(socket, command.id, {}),
): Promise<void> {
  await listen((socket) => {
    socket.write(GREETING);
    const lines = new LineSplitter(1 << 20);
    socket.on("data", (chunk) => {
      for (const line of lines.push(chunk)) {
        const command = JSON.parse(line) as Command;
        if (command.execute === "qmp_capabilities") answer(socket, command.id, {});
        else {
          received.push(command);
          behave(command, socket);
        }
      }
    });
  });
}

async function connect(options?: QmpOptions): Promise<QmpClient> {
  const client = await QmpClient.connect(address(), options);
  clients.push(client);
  return client;
}

/** The error a promise rejects with, which must be one of ours. */
async function failure(promise: Promise<unknown>): Promise<DeltaveeError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DeltaveeError);
  return error as DeltaveeError;
}

describe("connecting", () => {
  test("the greeting gives QEMU's version, also when it comes byte by byte", async () => {
    await listen((socket) => {
      void (async () => {
        for (const byte of Buffer.from(GREETING)) {
          socket.write(Buffer.from([byte]));
          await new Promise((resolve) => setImmediate(resolve));
        }
      })();
      socket.on("data", () => answer(socket, 1, {}));
    });
    const client = await connect();
    expect(client.version).toEqual({ major: 7, minor: 2, micro: 22, package: "Debian 1:7.2" });
  });

  test("no socket at the address is QMP_UNAVAILABLE and names the address", async () => {
    const error = await failure(connect());
    expect(error.code).toBe("QMP_UNAVAILABLE");
    expect(error.message).toContain(address().path);
    expect(((error.cause as Error).cause as NodeJS.ErrnoException).code).toBe("ENOENT");
  });

  test("a monitor that does not greet is given up after the time-out", async () => {
    const clock = new VirtualClock();
    await listen(() => {});
    let error: DeltaveeError | undefined;
    void failure(connect({ clock, connectTimeoutMs: 3000 })).then((thrown) => {
      error = thrown;
    });
    // The wait for the greeting begins some turns of the event loop from now.
    while (error === undefined) {
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(1000);
    }
    expect(error.code).toBe("QMP_UNAVAILABLE");
    expect(error.message).toContain("3000 ms");
    expect(error.message).toContain("another client");
  });

  test.each([
    ["a connection closed before the greeting", ""],
    ["a greeting that is not JSON", "hello\n"],
    ["a greeting of something else", '{"SSH": {}}\n'],
    ["a greeting without a version", '{"QMP": {"version": {"qemu": {"major": "7"}}}}\n'],
    ["an answer in place of the greeting", '{"return": {}, "id": 1}\n'],
  ])("%s is QMP_UNAVAILABLE", async (_what, bytes) => {
    await listen((socket) => socket.end(bytes));
    expect((await failure(connect())).code).toBe("QMP_UNAVAILABLE");
  });

  test("a QEMU that refuses the negotiation is QMP_UNAVAILABLE", async () => {
    await listen((socket) => {
      socket.write(GREETING);
      socket.on("data", () =>
        socket.write('{"id": 1, "error": {"class": "GenericError", "desc": "no"}}\r\n'),
      );
    });
    const error = await failure(connect());
    expect(error.code).toBe("QMP_UNAVAILABLE");
    expect(error.cause).toBeInstanceOf(QmpCommandError);
  });
});

describe("commands", () => {
  test("a command carries its arguments and gives back what QEMU answered, unknown fields dropped", async () => {
    await fakeQemu((command, socket) =>
      answer(socket, command.id, { status: "inmigrate", running: false, singlestep: false }),
    );
    const client = await connect();
    expect(await client.execute("query-status")).toEqual({ status: "inmigrate", running: false });
    await client.execute("migrate-set-parameters", { "downtime-limit": 300 });
    expect(received.map(({ execute, arguments: sent }) => [execute, sent])).toEqual([
      ["query-status", {}],
      ["migrate-set-parameters", { "downtime-limit": 300 }],
    ]);
  });

  test("a refused command is a QmpCommandError with QEMU's words, and the next one works", async () => {
    await fakeQemu((command, socket) => {
      if (command.execute !== "migrate") answer(socket, command.id, {});
      else socket.write(`{"id": ${command.id}, "error": {"class": "GenericError", "desc": "bad uri"}}\r\n`);
    });
    const client = await connect();
    const error = await failure(client.execute("migrate", { uri: "x" }));
    expect(error).toBeInstanceOf(QmpCommandError);
    expect(error).toMatchObject({
      code: "QMP_COMMAND_REFUSED",
      command: "migrate",
      errorClass: "GenericError",
    });
    expect(error.message).toContain("bad uri");
    expect(await client.execute("cont")).toEqual({});
  });

  test("answers are matched by id, in whatever order and pieces they come", async () => {
    const waiting: number[] = [];
    await fakeQemu((command, socket) => {
      waiting.push(command.id);
      if (waiting.length < 20) return;
      for (const id of waiting.reverse()) answer(socket, id, `answer ${id}`);
    });
    const client = await connect();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        client.execute("human-monitor-command", { "command-line": `info ${i}` }),
      ),
    );
    // Id 1 was the negotiation.
    expect(answers).toEqual(Array.from({ length: 20 }, (_, i) => `answer ${i + 2}`));
  });

  test("a command that is not answered in time is interrupted; its late answer harms nobody", async () => {
    const clock = new VirtualClock();
    const held: Command[] = [];
    await fakeQemu((command, socket) => {
      if (command.execute === "stop") held.push(command);
      else {
        for (const { id } of held) answer(socket, id, {});
        answer(socket, command.id, { status: "paused", running: false });
      }
    });
    const client = await connect({ clock, commandTimeoutMs: 10_000 });
    const stopping = failure(client.execute("stop", {}, { timeoutMs: 500 }));
    while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    clock.advance(500);
    const error = await stopping;
    expect(error).toBeInstanceOf(QmpInterruptedError);
    expect(error).toMatchObject({ code: "QMP_INTERRUPTED", command: "stop" });
    expect(error.message).toContain("500 ms");
    expect((await client.execute("query-status")).status).toBe("paused");
  });

  test("an answer of unknown form is HYPERVISOR_INCOMPATIBLE and leaves the connection alive", async () => {
    await fakeQemu((command, socket) =>
      answer(socket, command.id, command.execute === "query-status" ? { status: 7 } : {}),
    );
    const client = await connect();
    const error = await failure(client.execute("query-status"));
    expect(error.code).toBe("HYPERVISOR_INCOMPATIBLE");
    expect(error.message).toContain("query-status");
    expect(await client.execute("query-migrate")).toEqual({});
  });

  test("no more than the limit of commands wait for an answer", async () => {
    await fakeQemu(() => {});
    const client = await connect();
    const waiting = Array.from({ length: QMP_PENDING_COMMANDS_MAX }, () => failure(client.execute("stop")));
    expect((await failure(client.execute("cont"))).code).toBe("QMP_UNAVAILABLE");
    client.close();
    expect((await Promise.all(waiting)).every((error) => error instanceof QmpInterruptedError)).toBe(true);
  });
});

describe("events", () => {
  test("events between answers reach their listeners with both times, unknown ones are dropped", async () => {
    const clock = new VirtualClock();
    clock.advance(5);
    await fakeQemu((command, socket) => {
      socket.write(event("NIC_RX_FILTER_CHANGED", { name: "net0" }));
      socket.write(event("MIGRATION", { status: "setup" }) + event("MIGRATION_PASS", { pass: 1 }));
      answer(socket, command.id, {});
      socket.write(event("STOP"));
    });
    const client = await connect({ clock });
    const seen: unknown[] = [];
    client.on("MIGRATION", ({ data }) => seen.push(data.status));
    client.on("MIGRATION_PASS", ({ data }) => seen.push(data.pass));
    const stopped = client.waitForEvent("STOP", () => true, 1000);
    await client.execute("migrate", { uri: "unix:/x" });
    expect(await stopped).toEqual({ name: "STOP", data: {}, qemuTimeMs: 1_700_000_000_250, receivedMs: 5 });
    expect(seen).toEqual(["setup", 1]);
  });

  test("a listener that was taken away is not called again", async () => {
    await fakeQemu((command, socket) => {
      socket.write(event("RESUME"));
      answer(socket, command.id, {});
    });
    const client = await connect();
    let calls = 0;
    const remove = client.on("RESUME", () => calls++);
    await client.execute("cont");
    remove();
    await client.execute("cont");
    expect(calls).toBe(1);
  });

  test("waiting goes on until the predicate holds", async () => {
    await fakeQemu((command, socket) => {
      answer(socket, command.id, {});
      for (const status of ["setup", "active", "completed"]) socket.write(event("MIGRATION", { status }));
    });
    const client = await connect();
    const completed = client.waitForEvent("MIGRATION", ({ data }) => data.status === "completed", 1000);
    await client.execute("cont");
    expect((await completed).data.status).toBe("completed");
  });

  test("an event that does not come is HYPERVISOR_FAILED after the time-out", async () => {
    const clock = new VirtualClock();
    await fakeQemu();
    const client = await connect({ clock });
    const waiting = failure(client.waitForEvent("STOP", () => true, 700));
    clock.advance(700);
    const error = await waiting;
    expect(error.code).toBe("HYPERVISOR_FAILED");
    expect(error.message).toContain("STOP");
  });
});

describe("losing the connection", () => {
  test("a command under way is interrupted, the loss is reported once, later commands fail at once", async () => {
    await fakeQemu((_command, socket) => socket.destroy());
    const client = await connect();
    let losses = 0;
    void client.lost.then(() => losses++);
    const waiting = failure(client.waitForEvent("STOP", () => true, 60_000));
    const interrupted = await failure(client.execute("migrate_cancel"));
    expect(interrupted).toBeInstanceOf(QmpInterruptedError);
    expect(interrupted).toMatchObject({ command: "migrate_cancel" });
    expect((await client.lost).code).toBe("QMP_UNAVAILABLE");
    expect((await waiting).code).toBe("QMP_UNAVAILABLE");
    expect((await failure(client.execute("query-status"))).code).toBe("QMP_UNAVAILABLE");
    expect((await failure(client.waitForEvent("STOP", () => true, 60_000))).code).toBe("QMP_UNAVAILABLE");
    client.close();
    client.close();
    expect(losses).toBe(1);
  });

  test("an answer that arrives with the end of the connection still counts", async () => {
    await fakeQemu((command, socket) => socket.end(`${JSON.stringify({ return: {}, id: command.id })}\r\n`));
    const client = await connect();
    expect(await client.execute("quit")).toEqual({});
    await client.lost;
  });

  test("closing it ourselves interrupts commands, is idempotent and is no loss", async () => {
    await fakeQemu(() => {});
    const client = await connect();
    let lost = false;
    void client.lost.then(() => {
      lost = true;
    });
    const interrupted = failure(client.execute("stop"));
    client.close();
    client.close();
    expect(await interrupted).toBeInstanceOf(QmpInterruptedError);
    expect((await failure(client.execute("stop"))).code).toBe("QMP_UNAVAILABLE");
    await new Promise((resolve) => setImmediate(resolve));
    expect(lost).toBe(false);
  });

  test("an abandoned wait for an event does not end the process", async () => {
    await fakeQemu((_command, socket) => socket.destroy());
    const client = await connect();
    void client.waitForEvent("STOP", () => true, 60_000);
    await failure(client.execute("stop"));
    // An unhandled rejection would fail the test run.
    await new Promise((resolve) => setImmediate(resolve));
  });

  test.each([
    ["garbage", "\x00\xff\xfe garbage\n"],
    ["half an object", '{"return": \n'],
    ["JSON that is no object", "[1, 2]\n"],
    ["an object of another kind", '{"foo": 1}\n'],
    ["an answer to a command that was never sent", '{"return": {}, "id": 4711}\n'],
    ["an answer without an id", '{"return": {}}\n'],
    ["an error without an id", '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'],
    ["a known event with foreign data", event("MIGRATION", { status: 1 })],
    ["a second greeting", GREETING],
  ])("%s ends the connection with QMP_UNAVAILABLE and quotes it", async (_what, bytes) => {
    await fakeQemu((_command, socket) => socket.write(bytes));
    const client = await connect();
    expect(await failure(client.execute("stop"))).toBeInstanceOf(QmpInterruptedError);
    const loss = await client.lost;
    expect(loss.code).toBe("QMP_UNAVAILABLE");
    expect(loss.message).toContain(JSON.stringify(bytes.trimEnd().slice(0, 10)).slice(1, 5));
  });

  test("a line without an end is cut off at the limit", async () => {
    await fakeQemu((_command, socket) => socket.write(Buffer.alloc(QMP_LINE_BYTES_MAX + 1, 0x20)));
    const client = await connect();
    expect(await failure(client.execute("stop"))).toBeInstanceOf(QmpInterruptedError);
    expect((await client.lost).message).toContain("over-long");
  });

  test("any bytes after the greeting leave a typed error or an answer, never a crash", async () => {
    let bytes = Buffer.alloc(0);
    await fakeQemu((_command, socket) => socket.end(bytes));
    const fragment = fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array)),
      fc.json().map((text) => Buffer.from(text)),
      fc
        .constantFrom('{"return": {}, "id": 2}', '{"id": 2, "error": ', event("STOP"), "\r\n", "\n")
        .map(Buffer.from),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fragment, { maxLength: 8 }), async (fragments) => {
        bytes = Buffer.concat(fragments);
        const client = await connect();
        try {
          expect(await client.execute("stop")).toEqual({});
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(DeltaveeError);
        }
        client.close();
      }),
      { numRuns: 200 },
    );
  });
});
