// The lobby over real sockets: who says what it wants comes in with every byte, whoever does not keeps nobody out.

import type { Socket } from "node:net";
import net from "node:net";
import tls from "node:tls";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Authority, keyPem } from "../../test/support/certificates.ts";
import { systemClock, VirtualClock } from "../base/clock.ts";
import { encodeFrame, type Frame, type ResumeFrame } from "../wire/frame.ts";
import { FrameReader } from "../wire/frame-reader.ts";
import { helloFrame } from "../wire/handshake.ts";
import { type Listener, listen } from "./address.ts";
import { type Caller, LOBBY_MAX, Lobby, type LobbyOptions, networkOf } from "./lobby.ts";
import { SecureDialer } from "./tls/dialer.ts";
import type { TlsIdentity } from "./tls/identity.ts";

const SESSION = "00112233445566778899aabbccddeeff";
const HELLO = encodeFrame(
  helloFrame({
    deltavee: "test",
    session: SESSION,
    hypervisor: { kind: "qemu", version: "10.0.2" },
    entropyCodecs: [1],
  }),
);
const RESUME_FRAME: ResumeFrame = {
  type: "resume",
  version: 3,
  stage: "streaming",
  connection: 2,
  session: SESSION,
  token: SESSION,
  returnBytes: 0,
};
const KEEPALIVE = encodeFrame({ type: "keepalive" });

const sockets: { destroy(): void }[] = [];
let listener: Listener;
let lobby: Lobby;
let entered: Caller[];
let turnedAway: string[];
let clock: VirtualClock;

beforeEach(() => {
  [entered, turnedAway, clock] = [[], [], new VirtualClock()];
});

afterEach(() => {
  lobby.close();
  listener.close();
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function open(options: Partial<LobbyOptions> = {}): Promise<void> {
  lobby = new Lobby({
    clock,
    identity: undefined,
    refusal: () => undefined,
    enter: (caller) => entered.push(caller),
    turnedAway: (text) => turnedAway.push(text),
    ...options,
  });
  const handlers = { onConnection: (socket: Socket) => lobby.connected(socket), onError: () => {} };
  listener = await listen({ kind: "tcp", host: "0.0.0.0", port: 0 }, handlers, { pauseOnConnect: true });
}

function port(): number {
  return (listener.address as { port: number }).port;
}

/** Another loopback address is another host to the lobby. */
function call(localAddress = "127.0.0.1"): Socket & { heard: Buffer[]; isClosed: boolean } {
  const socket = net.connect({ host: "127.0.0.1", port: port(), localAddress });
  const heard: Buffer[] = [];
  const caller = Object.assign(socket, { heard, isClosed: false });
  socket.on("data", (bytes) => heard.push(bytes));
  socket.on("error", () => {});
  socket.on("close", () => {
    caller.isClosed = true;
  });
  sockets.push(socket);
  return caller;
}

function framesIn(heard: readonly Buffer[]): Frame[] {
  const reader = new FrameReader();
  reader.push(Buffer.concat(heard));
  const frames: Frame[] = [];
  for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame);
  return frames;
}

/** All that comes of it, from the first byte. */
function listenTo(caller: Caller): { bytes: () => Buffer; events: string[] } {
  const received: Buffer[] = [];
  const events: string[] = [];
  const room = Buffer.alloc(1000);
  caller.channel.listen({
    space: () => room,
    data: (bytes) => received.push(Buffer.from(bytes)),
    drained: () => {},
    ended: () => events.push("ended"),
    failed: (error) => events.push(error.message),
  });
  return { bytes: () => Buffer.concat(received), events };
}

describe("who says what it wants", () => {
  test.each([
    ["HELLO", HELLO],
    ["RESUME", encodeFrame(RESUME_FRAME)],
  ])("comes in with %s, and whoever it is for hears it from the first byte", async (_, first) => {
    await open();
    const socket = call();
    const sent = Buffer.concat([first, KEEPALIVE, KEEPALIVE]);
    for (const byte of sent.subarray(0, 30)) socket.write(Buffer.of(byte));
    socket.write(sent.subarray(30));
    await expect.poll(() => entered.length).toBe(1);
    expect(lobby.size).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 10));
    const { bytes, events } = listenTo(entered[0]!);
    entered[0]!.channel.write(KEEPALIVE);
    await expect.poll(() => Buffer.concat(socket.heard)).toEqual(Buffer.from(KEEPALIVE));
    socket.write(KEEPALIVE);
    socket.end();
    await expect.poll(() => events).toEqual(["ended"]);
    expect(bytes().equals(Buffer.concat([sent, KEEPALIVE]))).toBe(true);
    expect(turnedAway).toEqual([]);
  });

  test("whoever it is for may pause before it hears anything, and again", async () => {
    await open();
    const socket = call();
    socket.write(Buffer.concat([HELLO, KEEPALIVE]));
    await expect.poll(() => entered.length).toBe(1);
    const { channel } = entered[0]!;
    const { bytes } = listenTo(entered[0]!);
    channel.pause();
    socket.write(KEEPALIVE);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(bytes()).toHaveLength(0);
    channel.resume();
    await expect.poll(() => bytes().length).toBe(HELLO.length + 2 * KEEPALIVE.length);
    channel.pause();
    socket.write(KEEPALIVE);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(bytes()).toHaveLength(HELLO.length + 2 * KEEPALIVE.length);
    channel.destroy();
  });

  test("one that is refused is told why", async () => {
    await open({ refusal: () => ({ code: "UNAUTHORISED", message: "not this VM" }) });
    const socket = call();
    socket.write(HELLO);
    await expect.poll(() => socket.isClosed).toBe(true);
    expect(framesIn(socket.heard)).toEqual([
      { type: "refuse", reason: { code: "UNAUTHORISED", message: "not this VM" } },
    ]);
    expect([entered, turnedAway]).toEqual([[], ["127.0.0.1 was refused: UNAUTHORISED: not this VM"]]);
  });

  test.each([
    ["something else", Buffer.from("GET / HTTP/1.1\r\n\r\n"), "Expected HELLO"],
    ["another frame", KEEPALIVE, "Expected HELLO or RESUME as the first frame"],
    ["the header of a long one", Buffer.from("445604000010400c0000000000000001", "hex"), "Expected HELLO"],
    ["TLS", Buffer.from("16030100c8", "hex"), "TLS is spoken, where plain text is expected"],
  ])("%s is refused as soon as it is known to be none", async (_, bytes, words) => {
    await open();
    const socket = call();
    socket.write(bytes);
    await expect.poll(() => socket.isClosed || socket.heard.length > 0).toBe(true);
    expect(framesIn(socket.heard)).toMatchObject([{ type: "refuse", reason: { code: "INVALID" } }]);
    expect(turnedAway).toEqual([expect.stringContaining(words)]);
    // It has a moment to hang up by itself.
    socket.removeAllListeners("data");
    clock.advance(1000);
    await expect.poll(() => lobby.size).toBe(0);
  });
});

describe("who keeps others waiting", () => {
  test("one that says nothing, or not all, has 10 s", async () => {
    await open();
    const [silent, slow] = [call(), call()];
    slow.write(HELLO.subarray(0, 20));
    await expect.poll(() => lobby.size).toBe(2);
    clock.advance(9_900);
    slow.write(HELLO.subarray(20, 21));
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(lobby.size).toBe(2);
    clock.advance(200);
    expect(lobby.size).toBe(0);
    await expect.poll(() => [silent.isClosed, slow.isClosed]).toEqual([true, true]);
    expect(turnedAway).toEqual(Array(2).fill("127.0.0.1: has not said what it wants within 10 s"));
  });

  test("many of one address go before one of another, and the next that speaks comes in all the same", async () => {
    await open();
    const quiet = call("127.0.0.2");
    await expect.poll(() => lobby.size).toBe(1);
    const many = Array.from({ length: LOBBY_MAX + 10 }, () => call("127.0.0.3"));
    await expect.poll(() => many.filter(({ isClosed }) => isClosed).length).toBe(11);
    expect(lobby.size).toBe(LOBBY_MAX);
    expect(quiet.isClosed).toBe(false);
    const source = call("127.0.0.3");
    source.write(HELLO);
    await expect.poll(() => entered.length).toBe(1);
    quiet.write(HELLO);
    await expect.poll(() => entered.length).toBe(2);
    expect(entered.map(({ from }) => from)).toEqual(["127.0.0.3", "127.0.0.2"]);
  });

  test("one that hangs up, or is reset, is forgotten", async () => {
    await open();
    const [leaving, resetting] = [call(), call()];
    await expect.poll(() => lobby.size).toBe(2);
    leaving.end();
    resetting.resetAndDestroy();
    await expect.poll(() => lobby.size).toBe(0);
    expect(turnedAway).toHaveLength(2);
    expect(clock.nextDueMs()).toBeUndefined();
  });

  test("when it closes nobody is left in it", async () => {
    await open();
    const socket = call();
    await expect.poll(() => lobby.size).toBe(1);
    lobby.close();
    await expect.poll(() => socket.isClosed).toBe(true);
    expect([lobby.size, clock.nextDueMs()]).toEqual([0, undefined]);
  });
});

describe("with TLS", () => {
  const authority = new Authority();
  const identity = (names: string[], by = authority): TlsIdentity => {
    const { key, certificate } = by.issue(names);
    return { key: keyPem(key), certificate, trusted: [authority.certificate] };
  };
  const own = identity(["127.0.0.1"]);
  const address = () => ({ kind: "deltavee", host: "127.0.0.1", port: port() }) as const;

  test("who has proved who it is comes in; both sides know the same binding", async () => {
    await open({ identity: own, clock: systemClock });
    const dialer = new SecureDialer(address(), identity(["source"]), "127.0.0.1");
    const channel = await dialer.connect(10_000);
    channel.listen({ data: () => {}, drained: () => {}, ended: () => {}, failed: () => {} });
    channel.write(HELLO);
    await expect.poll(() => entered.length).toBe(1);
    expect(entered[0]!.secure).toMatchObject({ binding: dialer.binding });
    expect(entered[0]!.secure!.peer.title).toBe("source");
    const { bytes } = listenTo(entered[0]!);
    channel.write(KEEPALIVE);
    await expect.poll(() => bytes().length).toBe(HELLO.length + KEEPALIVE.length);
    channel.destroy();
  });

  test("who has not is told so, before it has said anything", async () => {
    await open({ identity: own, clock: systemClock });
    const stranger = identity(["source"], new Authority("Another"));
    const channel = await new SecureDialer(address(), stranger, "127.0.0.1").connect(10_000);
    const heard: Buffer[] = [];
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    channel.listen({
      data: (bytes) => heard.push(Buffer.from(bytes)),
      drained: () => {},
      ended: over,
      failed: over,
    });
    await expect.poll(() => isOver).toBe(true);
    expect(framesIn(heard)).toMatchObject([{ type: "refuse", reason: { code: "CERTIFICATE" } }]);
    expect(entered).toEqual([]);
    expect(turnedAway).toEqual([expect.stringMatching(/its authority is not one that is trusted here/)]);
    channel.destroy();
  });

  test("plain text, and a handshake that stops half way, keep nobody else out", async () => {
    await open({ identity: own });
    const [plain, half] = [call(), call()];
    plain.write(HELLO);
    half.write(Buffer.from("16030100c8", "hex"));
    await expect.poll(() => turnedAway.length).toBe(1);
    expect(turnedAway[0]).toMatch(/TLS handshake failed/);
    const channel = await new SecureDialer(address(), identity(["source"]), "127.0.0.1").connect(10_000);
    channel.listen({ data: () => {}, drained: () => {}, ended: () => {}, failed: () => {} });
    channel.write(HELLO);
    await expect.poll(() => entered.length).toBe(1);
    clock.advance(10_000);
    await expect.poll(() => half.isClosed).toBe(true);
    expect(lobby.size).toBe(0);
    channel.destroy();
  });

  test("a dialer takes nobody for its peer but the one that it has met first", async () => {
    await open({ identity: own, clock: systemClock });
    const other = tls.createServer({ ...identityOptions(identity(["127.0.0.1"])), requestCert: true });
    sockets.push({ destroy: () => other.close() });
    const dialer = new SecureDialer(address(), identity(["source"]), "127.0.0.1");
    const first = await dialer.connect(10_000);
    const again = await dialer.connect(10_000);
    const { port: taken } = listener.address as { port: number };
    listener.close();
    for (const channel of [first, again]) channel.destroy();
    await new Promise<void>((resolve) => other.listen(taken, "127.0.0.1", resolve));
    await expect(dialer.connect(10_000)).rejects.toMatchObject({
      code: "TLS_PEER_REJECTED",
      message: expect.stringMatching(/not the one that the migration began with/),
    });
  });

  function identityOptions({ key, certificate, trusted }: TlsIdentity): tls.TlsOptions {
    return { key, cert: certificate, ca: [...trusted], minVersion: "TLSv1.3" };
  }
});

test("all addresses that a host may have by itself count as one", () => {
  expect(networkOf("192.0.2.7")).toBe("192.0.2.7");
  expect(networkOf("::ffff:192.0.2.7")).toBe("::ffff:192.0.2.7");
  const network = networkOf("2001:db8:1:2:aaaa::7");
  for (const other of ["2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6"]) expect(networkOf(other)).toBe(network);
  for (const other of ["2001:db8:1:3::1", "2001:db8:1::2", "::1", "2001:db8::1:2:0:0:7"])
    expect(networkOf(other)).not.toBe(network);
  expect(networkOf("fe80::1%eth0")).not.toBe(networkOf("fe80::2%eth0"));
});
