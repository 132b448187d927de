// What a QEMU that takes a VM in is told, seen from a monitor behind which nothing is but a socket that it connects.

import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { QemuIncoming } from "./incoming.ts";
import { LineSplitter } from "./lines.ts";

interface Given {
  capabilities?: { capability: string; state: boolean }[];
  uri?: string;
}

const KNOWN = ["events", "return-path", "multifd", "postcopy-ram", "xbzrle"];

let folder: string;
let runState: string;
let vm: QemuIncoming;
let commands: string[];
let capabilitiesOn: Set<string>;
let isRefusing: boolean;
/** Connections to where the stream goes. */
let incoming: Socket[];
const servers: Server[] = [];
const sockets: Socket[] = [];

function serve(path: string, onConnection: (socket: Socket) => void): Promise<void> {
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    onConnection(socket);
  });
  servers.push(server);
  return new Promise((resolve) => server.listen(path, resolve));
}

async function answer(command: string, given: Given): Promise<object> {
  if (command === "query-status") return { return: { status: runState, running: false } };
  if (command === "query-migrate-capabilities") {
    return { return: KNOWN.map((capability) => ({ capability, state: capabilitiesOn.has(capability) })) };
  }
  if (command === "migrate-set-capabilities") {
    for (const { capability, state } of given.capabilities!) {
      if (state) capabilitiesOn.add(capability);
      else capabilitiesOn.delete(capability);
    }
  }
  if (command === "migrate-incoming") {
    if (isRefusing) return { error: { class: "GenericError", desc: "no" } };
    await serve(given.uri!.slice("unix:".length), (socket) => incoming.push(socket));
  }
  return { return: {} };
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "deltavee-incoming-"));
  [commands, capabilitiesOn, isRefusing, incoming] = [
    [],
    new Set(["events", "xbzrle", "multifd"]),
    false,
    [],
  ];
  runState = "inmigrate";
  const path = join(folder, "qmp.sock");
  await serve(path, (socket) => {
    const qemu = { micro: 2, minor: 0, major: 10 };
    socket.write(`${JSON.stringify({ QMP: { version: { qemu, package: "" }, capabilities: [] } })}\r\n`);
    const lines = new LineSplitter(1 << 20);
    socket.on("data", async (chunk) => {
      for (const line of lines.push(chunk)) {
        const { execute, arguments: given, id } = JSON.parse(line);
        commands.push(execute);
        socket.write(`${JSON.stringify({ ...(await answer(execute, given)), id })}\r\n`);
      }
    });
  });
  vm = await QemuIncoming.open({ kind: "unix", path }, () => {});
});

afterEach(async () => {
  await vm.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
  await rm(folder, { recursive: true, force: true });
});

const timesBegun = () => commands.filter((command) => command === "migrate-incoming").length;

test("it begins once, whoever it was for: QEMU would refuse to do so again", async () => {
  const [first, second] = await Promise.all([vm.begin(false), vm.begin(false)]);
  expect(second).toBe(first);
  expect(capabilitiesOn.has("postcopy-ram")).toBe(false);
  expect(await vm.begin(true)).toBe(first);
  expect(timesBegun()).toBe(1);
  expect(capabilitiesOn.has("postcopy-ram")).toBe(true);
});

test("what could not be begun is tried again", async () => {
  isRefusing = true;
  await expect(vm.begin(false)).rejects.toMatchObject({ code: "QMP_COMMAND_REFUSED" });
  isRefusing = false;
  await vm.begin(false);
  expect(timesBegun()).toBe(2);
});

test("QEMU sees its connection close when it is let go of, and can go on without us", async () => {
  await vm.begin(true);
  await expect.poll(() => incoming.length).toBe(1);
  const closed = new Promise((resolve) => incoming[0]!.once("close", resolve));
  incoming[0]!.resume();
  await vm.close();
  await closed;
});

test("QEMU's capabilities are as they were once the guest is there", async () => {
  const before = new Set(capabilitiesOn);
  await vm.begin(true);
  expect(capabilitiesOn).toEqual(new Set(["events", "return-path", "postcopy-ram", "xbzrle"]));
  runState = "paused";
  const event = {
    event: "MIGRATION",
    data: { status: "completed" },
    timestamp: { seconds: 0, microseconds: 0 },
  };
  sockets[0]!.write(`${JSON.stringify(event)}\r\n`);
  await vm.loaded();
  await vm.close();
  expect(capabilitiesOn).toEqual(before);
});

test("QEMU's capabilities are left alone where the guest has not arrived: it may have to go on", async () => {
  await vm.begin(true);
  await vm.close();
  expect(capabilitiesOn.has("postcopy-ram")).toBe(true);
});
