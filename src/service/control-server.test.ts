// The control socket with both of its ends: who can open it, what is bounded, and that errors come across as they are.

import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DeltaveeError } from "../base/errors.ts";
import { BODY_BYTES_MAX } from "./control-api.ts";
import { ControlClient } from "./control-client.ts";
import { type ControlRoutes, ControlServer } from "./control-server.ts";
import { pathFor } from "./qemu.ts";

let folder: string;
let server: ControlServer | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-control-"));
});
afterEach(() => {
  server?.close();
  rmSync(folder, { recursive: true });
});

async function serve(
  routes: ControlRoutes,
  notices: string[] = [],
  requestTimeoutMs?: number,
): Promise<{ path: string; client: ControlClient }> {
  const path = join(folder, "control.sock");
  server = await ControlServer.listen(path, routes, (text) => notices.push(text), requestTimeoutMs);
  return { path, client: new ControlClient(path) };
}

function raw(path: string, words: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    let said = "";
    socket.on("data", (bytes) => {
      said += bytes.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(said));
    socket.end(words);
  });
}

test("it is its owner's alone, and what is asked for is what is answered", async () => {
  const { path, client } = await serve({
    "GET /v1/migrations": () => ({ status: 200, body: { migrations: [] } }),
    "DELETE /v1/vms/:": (qmp) => ({ status: 200, body: { qmp } }),
    "POST /v1/vms": (_none, body) => ({ status: 201, body: JSON.parse(body) }),
  });
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(await client.migrations()).toEqual([]);
  expect(await client.forget("unix:/run/a b%.qmp")).toEqual({ qmp: "unix:/run/a b%.qmp" });
  expect(await client.prepare({ qmp: "x", name: "ä" })).toEqual({ qmp: "x", name: "ä" });
});

test("who does not say what he wants is not waited for, and whoever is there when it closes is not either", async () => {
  const { path } = await serve({}, [], 100);
  for (const words of [
    "",
    "GET /v1/migr",
    "POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
  ]) {
    const socket = connect({ path });
    socket.on("error", () => {}).resume();
    socket.write(words);
    await new Promise((resolve) => socket.once("close", resolve));
  }
  server!.close();
  const other = await serve({}, [], 60_000);
  const socket = connect({ path: other.path });
  socket.on("error", () => {}).resume();
  await new Promise((resolve) => socket.once("connect", resolve));
  // It has been accepted when somebody else has been answered.
  await raw(other.path, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  server!.close();
  await closed;
});

test("errors keep their code and their message", async () => {
  const notices: string[] = [];
  const { client } = await serve(
    {
      "POST /v1/migrations": () => {
        throw new DeltaveeError("SERVICE_STOPPING", "The service is shutting down");
      },
      "GET /v1/service": () => {
        throw new TypeError("a bug of ours");
      },
    },
    notices,
  );
  await expect(client.migrate({ qmp: "a", to: "b" })).rejects.toMatchObject({
    code: "SERVICE_STOPPING",
    message: "The service is shutting down",
  });
  await expect(client.service()).rejects.toMatchObject({ code: "INTERNAL" });
  expect(notices.join()).toContain("a bug of ours");
  await expect(client.vms()).rejects.toMatchObject({ code: "USAGE", message: "There is no GET /v1/vms" });
});

test("a request has a bound, and what is none is dismissed; the next one is answered", async () => {
  const { path, client } = await serve({
    "GET /v1/migrations": () => ({ status: 200, body: { migrations: [] } }),
    "POST /v1/vms": () => ({ status: 201, body: {} }),
  });
  const status = await new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, method: "POST", path: "/v1/vms" }, ({ statusCode }) =>
      resolve(statusCode),
    );
    asked.on("error", reject);
    asked.end("x".repeat(BODY_BYTES_MAX + 1));
  });
  expect(status).toBe(400);
  expect(await raw(path, "nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400/);
  expect(await raw(path, `GET / HTTP/1.1\r\nx: ${"y".repeat(20_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431/);
  expect(
    await raw(path, "DELETE /v1/vms/%E0%A4%A HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
  ).toContain("400");
  expect(await client.migrations()).toEqual([]);
});

test("one that is listened on is left alone, and so is what is no socket", async () => {
  const path = join(folder, "control.sock");
  writeFileSync(path, "not a socket");
  await expect(ControlServer.listen(path, {}, () => {})).rejects.toThrow("a file of that name exists");
  rmSync(path);
  const other = createServer().listen(path);
  await new Promise((resolve) => other.once("listening", resolve));
  await expect(ControlServer.listen(path, {}, () => {})).rejects.toThrow("another process listens there");
  other.close();
});

test("where nobody answers, or somebody else, that is said", async () => {
  const path = join(folder, "none.sock");
  await expect(new ControlClient(path).service()).rejects.toMatchObject({ code: "SERVICE_UNREACHABLE" });
  const other = createServer((socket) =>
    socket.end("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
  ).listen(path);
  await new Promise((resolve) => other.once("listening", resolve));
  await expect(new ControlClient(path).service()).rejects.toThrow("is no Deltavee service");
  other.close();
});

test("what a source calls its VM leads to no other place than the one that is meant", () => {
  expect(pathFor("/run/{name}.qmp", { name: "web-1" })).toBe("/run/web-1.qmp");
  expect(pathFor("/run/{uuid}", { uuid: "6f1c0000-0000-4000-8000-000000000001" })).toBe(
    "/run/6f1c0000-0000-4000-8000-000000000001",
  );
  for (const name of ["../etc/x", ".", "..", "a/b", "", "a b", "a\0b", "-x", ".hidden", "x".repeat(200)]) {
    expect(pathFor("/run/{name}.qmp", { name }), name).toBeUndefined();
  }
  expect(pathFor("/run/{name}.qmp", { uuid: "6f1c" })).toBeUndefined();
});
