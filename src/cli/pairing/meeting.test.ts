// Two hosts meet over real sockets, with somebody in between, with the wrong code, and with strangers about.

import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type OwnKeys, PairedKeys } from "../../library/paired-keys.ts";
import type { Address } from "../../link/address.ts";
import { newCode } from "./exchange.ts";
import { type Meeting, meetAt, waitAt } from "./meeting.ts";

const ANY: Address = { kind: "tcp", host: "127.0.0.1", port: 0 };
const code = newCode();
let folder: string;
let host1: OwnKeys;
let host2: OwnKeys;
let meeting: Meeting;
const turnedAway: string[] = [];
const toDestroy: { destroy(): void }[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-pair-"));
  host1 = PairedKeys.create(join(folder, "1")).own();
  host2 = PairedKeys.create(join(folder, "2")).own();
  turnedAway.length = 0;
  meeting = await waitAt(ANY, { keys: host2, code, name: "host2" }, (text) => turnedAway.push(text));
});

afterEach(() => {
  meeting.close();
  for (const each of toDestroy.splice(0)) each.destroy();
  rmSync(folder, { recursive: true });
});

test("with the same code each has the other one's certificate and name", async () => {
  const [atHost1, atHost2] = await Promise.all([
    meetAt(meeting.address, { keys: host1, code, name: "host1" }),
    meeting.met,
  ]);
  expect(atHost1).toMatchObject({ name: "host2", certificate: host2.certificate });
  expect(atHost2).toMatchObject({ name: "host1", certificate: host1.certificate });
  expect(turnedAway).toEqual([]);
});

test("a wrong code is refused on both sides, and there is no second try", async () => {
  const first = meetAt(meeting.address, { keys: host1, code: newCode(), name: "host1" });
  await expect(first).rejects.toMatchObject({ code: "LINK_CLOSED" });
  await expect(meeting.met).rejects.toMatchObject({ code: "PROTOCOL_REFUSED" });
});

test("many guesses at the same time are one try: the first one", async () => {
  const guesses = Array.from({ length: 8 }, () =>
    meetAt(meeting.address, { keys: host1, code: newCode(), name: "host1" }),
  );
  expect((await Promise.allSettled(guesses)).map(({ status }) => status)).toEqual(Array(8).fill("rejected"));
  await expect(meeting.met).rejects.toMatchObject({ code: "PROTOCOL_REFUSED" });
  expect(turnedAway.filter((text) => text.includes("another one's"))).toHaveLength(7);
});

test("what is no message does not use up the code, though it is as long as one", async () => {
  const { port } = meeting.address as { port: number };
  const other = tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...asCert(host1) });
  other.on("error", () => {});
  toDestroy.push(other);
  // A name that is none.
  other.once("secureConnect", () =>
    other.write(Buffer.concat([Buffer.from("DVPAIR1\0\x01\n"), Buffer.alloc(32)])),
  );
  await expect.poll(() => turnedAway.join()).toMatch(/no message of deltavee pair/);
  const [atHost1] = await Promise.all([
    meetAt(meeting.address, { keys: host1, code, name: "host1" }),
    meeting.met,
  ]);
  expect(atHost1.name).toBe("host2");
});

test("who stands in between, with keys of its own for each side, is found by both", async () => {
  const between = PairedKeys.create(join(folder, "between")).own();
  const { port } = meeting.address as { port: number };
  const server = tls.createServer({
    key: between.key,
    cert: between.certificate,
    requestCert: true,
    rejectUnauthorized: false,
  });
  server.on("secureConnection", (from) => {
    const to = tls.connect({
      port,
      host: "127.0.0.1",
      key: between.key,
      cert: between.certificate,
      rejectUnauthorized: false,
    });
    for (const socket of [from, to]) socket.on("error", () => {});
    from.pipe(to).pipe(from);
    toDestroy.push(from, to);
  });
  toDestroy.push({ destroy: () => server.close() });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address: Address = { ...ANY, port: (server.address() as net.AddressInfo).port };
  await expect(meetAt(address, { keys: host1, code, name: "host1" })).rejects.toThrow();
  await expect(meeting.met).rejects.toMatchObject({ code: "PROTOCOL_REFUSED" });
});

test("a listener that does not know the code learns nothing, and is not believed", async () => {
  const wrong = await waitAt(ANY, { keys: host2, code: newCode(), name: "host2" }, () => {});
  await expect(meetAt(wrong.address, { keys: host1, code, name: "host1" })).rejects.toMatchObject({
    code: "LINK_CLOSED",
  });
  wrong.close();
});

test("strangers that say nothing, or rubbish, or have no certificate, do not use up the code", async () => {
  const { port } = meeting.address as { port: number };
  const silent = net.connect(port, "127.0.0.1");
  const rubbish = net.connect(port, "127.0.0.1", () => rubbish.write("GET / HTTP/1.1\r\n\r\n"));
  const bare = tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  bare.once("secureConnect", () =>
    bare.write(Buffer.concat([Buffer.from("DVPAIR1\0\x01x"), Buffer.alloc(32)])),
  );
  const noise = tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...asCert(host1) });
  noise.once("secureConnect", () => noise.write(Buffer.alloc(1000, 0x5a)));
  for (const socket of [silent, rubbish, bare, noise]) {
    socket.on("error", () => {});
    toDestroy.push(socket);
  }
  await expect.poll(() => turnedAway.length).toBe(3);
  expect(turnedAway.join()).toMatch(/no certificate/);
  const [atHost1] = await Promise.all([
    meetAt(meeting.address, { keys: host1, code, name: "host1" }),
    meeting.met,
  ]);
  expect(atHost1.name).toBe("host2");
});

function asCert({ key, certificate }: OwnKeys): tls.ConnectionOptions {
  return { key, cert: certificate };
}
