// The link to a peer is measured, whoever else listens there is recognized and left in peace, and a listener is not used
// up by those who do not keep to what was agreed.

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Authority, writeTlsFolder } from "../../../test/support/certificates.ts";
import { UsageError } from "../../base/errors.ts";
import { Sources } from "../../library/sources.ts";
import type { Listener } from "../../link/address.ts";
import { Relay } from "../../link/relay.ts";
import { readTlsFolder } from "../../link/tls/identity.ts";
import { HOST_CLOCKS } from "./host.ts";
import { answer, MeasuringSocket, measure, TRANSFER_BYTES_MAX } from "./measuring.ts";
import { checkBind, checkPeer, judgeLink, measureFor, type PeerAddress, parsePeer } from "./peer.ts";

const ANY: PeerAddress = { kind: "deltavee", host: "127.0.0.1", port: 0 };
const authority = new Authority();
let folder: string;
let close: (() => void)[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-doctor-peer-"));
  close = [];
});
afterEach(() => {
  for (const each of close) each();
  rmSync(folder, { recursive: true });
});

async function listening(options = {}, told: (text: string) => void = () => {}): Promise<Listener> {
  const listener = await measureFor(ANY, options, told);
  close.push(() => listener.close());
  return listener;
}

const levels = (findings: readonly { check: string; level: string }[]) =>
  findings.map(({ check, level }) => `${check} ${level}`);

describe("a peer", () => {
  test("that measures: rate, round trip and clocks, by TLS where that is used", async () => {
    const tlsDir = writeTlsFolder(join(folder, "tls"), authority, authority.issue(["localhost"]));
    for (const security of [{}, { tlsDir }]) {
      const { address } = await listening(security);
      const options = { ...security, tlsHostname: "localhost" };
      const findings = await checkPeer(address as PeerAddress, options, HOST_CLOCKS);
      expect(levels(findings)).toEqual(["peer ok", "link ok", "peer-clock ok"]);
    }
  });

  test("behind a slow link: that is what is measured", async () => {
    const { address } = await listening();
    const relay = await Relay.start({
      listen: ANY,
      to: address,
      bytesPerSecond: 100_000,
      delayMs: 20,
      queueMs: 10,
      connectionsMax: 1,
      onError: () => {},
    });
    const findings = await checkPeer(relay.address as PeerAddress, {}, HOST_CLOCKS);
    await relay.close();
    expect(levels(findings)).toEqual(["peer ok", "link warning", "peer-clock ok"]);
    const { upBytesPerSecond, downBytesPerSecond, roundTripMs } = findings[1]!.values as Record<
      string,
      number
    >;
    expect(roundTripMs).toBeGreaterThanOrEqual(40);
    // The relay's rate is exact; a machine that is busy makes it less.
    for (const rate of [upBytesPerSecond!, downBytesPerSecond!]) expect(rate).toBeLessThan(250_000);
  });

  test("that is a receiver is reached, and hears nothing", async () => {
    const notices: string[] = [];
    const options = { identity: undefined, rules: [], notice: (text: string) => notices.push(text) };
    const sources = await Sources.listen(ANY, options);
    close.push(() => sources.close());
    const findings = await checkPeer(sources.address as PeerAddress, {}, HOST_CLOCKS);
    expect(levels(findings)).toEqual(["peer ok", "link warning"]);
    expect(findings[1]!.advice).toContain("doctor --listen");
  });

  test("that does not accept this host's certificate says so", async () => {
    const own = writeTlsFolder(join(folder, "own"), authority, authority.issue(["localhost"]));
    const others = writeTlsFolder(join(folder, "others"), authority, authority.issue(["localhost"]));
    const stranger = new Authority("Stranger");
    writeTlsFolder(join(folder, "trusting"), stranger, authority.issue(["localhost"]));
    const identity = { ...readTlsFolder(others, "server"), trusted: [stranger.certificate] };
    const sources = await Sources.listen(ANY, { identity, rules: [], notice: () => {} });
    close.push(() => sources.close());
    const options = { tlsDir: own, tlsHostname: "localhost" };
    const [finding] = await checkPeer(sources.address as PeerAddress, options, HOST_CLOCKS);
    expect(finding).toMatchObject({ check: "peer", level: "problem" });
    expect(finding!.says).toContain("CERTIFICATE");
  });

  test("that is not there, or something else, is a problem", async () => {
    const { address, close: end } = await listening();
    end();
    expect(levels(await checkPeer(address as PeerAddress, {}, HOST_CLOCKS))).toEqual(["peer problem"]);
    const other = createServer((socket) => socket.end("220 mail.example.com ESMTP\r\n")).listen(
      0,
      "127.0.0.1",
    );
    await once(other, "listening");
    close.push(() => other.close());
    const { port } = other.address() as { port: number };
    const [finding] = await checkPeer({ ...ANY, port }, {}, HOST_CLOCKS);
    expect(finding).toMatchObject({ level: "problem" });
    expect(finding!.says).toContain("no Deltavee");
  });

  test.each(["tcp:127.0.0.1:4444", "unix:/run/incoming", "127.0.0.1:4444"])("%s could be a QEMU", (text) => {
    expect(() => parsePeer(text)).toThrow(UsageError);
  });
});

test("clocks that are apart, and links that are slow, are told of", () => {
  const good = { roundTripMs: 4, clockAheadMs: -10, upBytesPerSecond: 1e7, downBytesPerSecond: 1e7 };
  expect(levels(judgeLink(good))).toEqual(["link ok", "peer-clock ok"]);
  const bad = judgeLink({ ...good, clockAheadMs: -7_200_000, upBytesPerSecond: 1000 });
  expect(levels(bad)).toEqual(["link warning", "peer-clock warning"]);
  expect(bad[1]!.says).toContain("behind");
});

test("an address that is free, and one that is not", async () => {
  const { address } = await listening();
  expect(await checkBind(address)).toMatchObject({ check: "port", level: "problem" });
  expect(await checkBind(ANY)).toMatchObject({ check: "port", level: "ok" });
});

describe("a listener", () => {
  /** Connects and says something; resolves to why the other side has ended it. */
  async function saying(text: string): Promise<string> {
    const told: string[] = [];
    const { address } = await listening({}, (message) => told.push(message));
    const { port } = address as { port: number };
    const socket: Socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    socket.write(text);
    await once(socket, "close");
    return told.at(-1)!;
  }

  test.each([
    ["a word that it does not know", "steal\n"],
    ["a line without an end", "x".repeat(10_000)],
    ["more than may be asked for at once", `down ${TRANSFER_BYTES_MAX + 1}\n`],
    ["nothing", "down 0\n"],
    ["pings without an end", "ping\n".repeat(1001)],
  ])("turns away who says %s", async (_what, text) => {
    expect(await saying(text)).toMatch(/was turned away: The peer said what is not understood/);
  });

  test("measures one at a time", async () => {
    const told: string[] = [];
    const { address } = await listening({}, (message) => told.push(message));
    const { port } = address as { port: number };
    const first = connect(port, "127.0.0.1");
    await once(first, "data");
    const second = connect(port, "127.0.0.1");
    second.on("error", () => {});
    await once(second, "close");
    expect(told).toContain("127.0.0.1 was turned away: another measurement is under way");
    first.destroy();
  });

  test("is not kept from measuring by a stranger who says nothing", async () => {
    const tlsDir = writeTlsFolder(join(folder, "tls"), authority, authority.issue(["localhost"]));
    const { address } = await listening({ tlsDir });
    const silent = connect((address as { port: number }).port, "127.0.0.1");
    close.push(() => silent.destroy());
    await once(silent, "connect");
    const findings = await checkPeer(
      address as PeerAddress,
      { tlsDir, tlsHostname: "localhost" },
      HOST_CLOCKS,
    );
    expect(levels(findings)).toEqual(["peer ok", "link ok", "peer-clock ok"]);
  });

  test("measures a clock that is ahead", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      answer(socket, () => Date.now() + 60_000).catch(() => socket.destroy());
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    close.push(() => server.close());
    const { port } = server.address() as { port: number };
    const socket = connect(port, "127.0.0.1");
    close.push(() => socket.destroy());
    const peer = new MeasuringSocket(socket, 60_000);
    await peer.line();
    const { clockAheadMs } = await measure(peer, HOST_CLOCKS);
    expect(Math.abs(clockAheadMs - 60_000)).toBeLessThan(5000);
  });
});
