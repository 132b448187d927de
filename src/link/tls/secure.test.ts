// TLS between two real sockets: who is let in, who is not and why, and that bytes arrive as they were.

import { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import net from "node:net";
import tls from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { randomBytes } from "../../../test/support/arbitrary-stream.ts";
import { Authority, daysFromNow, type HostCertificate, keyPem } from "../../../test/support/certificates.ts";
import { DeltaveeError } from "../../base/errors.ts";
import type { ChannelListener } from "../../engine/ports.ts";
import { connect, type Listener, listen } from "../address.ts";
import { SocketChannel } from "../socket-channel.ts";
import type { TlsIdentity } from "./identity.ts";
import {
  fingerprintOf,
  type RejectedConnection,
  type SecureConnection,
  secureClient,
  secureServer,
} from "./secure.ts";

const TIMEOUT_MS = 10_000;
const authority = new Authority();
const stranger = new Authority("Another authority");
const SERVER = authority.issue(["server.example", "127.0.0.1"]);
const CLIENT = authority.issue(["client.example"]);
/** Of plain text, in TLS. */
const RECORD_BYTES_MAX = 16 * 1024;
const CONTENT = Buffer.from(Uint8Array.from({ length: 3_000_017 }, randomBytes(5)));

let listener: Listener | undefined;
const sockets: { destroy(): void }[] = [];

afterEach(() => {
  listener?.close();
  for (const socket of sockets.splice(0)) socket.destroy();
});

function identity({ key, certificate }: HostCertificate, trusted = authority): TlsIdentity {
  return { key: keyPem(key), certificate, trusted: [trusted.certificate] };
}

function pinned({ key, certificate }: HostCertificate, peer: HostCertificate): TlsIdentity {
  const fingerprint = fingerprintOf(new X509Certificate(peer.certificate));
  return {
    key: keyPem(key),
    certificate,
    trusted: [peer.certificate],
    pinned: new Map([[fingerprint, "paired"]]),
  };
}

function selfSigned(subject: string): HostCertificate {
  const { key } = authority.issue([subject]);
  return authority.issue([subject], { key, issuer: { subject, key } });
}

/** Two connected sockets; `between` may stand in the way. */
async function connected(between?: (address: net.AddressInfo) => Promise<number>): Promise<[Socket, Socket]> {
  let accept = (_socket: Socket) => {};
  const accepted = new Promise<Socket>((resolve) => {
    accept = resolve;
  });
  const handlers = { onConnection: (socket: Socket) => accept(socket), onError: () => {} };
  listener = await listen({ kind: "tcp", host: "127.0.0.1", port: 0 }, handlers, { pauseOnConnect: true });
  const { host, port } = listener.address as { host: string; port: number };
  const at = (await between?.({ address: host, port, family: "IPv4" })) ?? port;
  const client = await connect({ kind: "tcp", host, port: at }, TIMEOUT_MS);
  const server = await accepted;
  for (const socket of [client, server]) socket.on("error", () => {});
  sockets.push(client, server);
  return [server, client];
}

interface Handshake {
  client: SecureConnection | string;
  server: SecureConnection | RejectedConnection | string;
}

async function handshake(server: TlsIdentity, client: TlsIdentity, host = "127.0.0.1"): Promise<Handshake> {
  const [accepted, connecting] = await connected();
  const words = (thrown: unknown) => {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    return `${thrown.code}: ${thrown.message}`;
  };
  const [ofClient, ofServer] = await Promise.all([
    secureClient(connecting, client, host, TIMEOUT_MS).catch(words),
    secureServer(accepted, server, TIMEOUT_MS).catch(words),
  ]);
  return { client: ofClient, server: ofServer };
}

async function secured(): Promise<{ client: SecureConnection; server: SecureConnection }> {
  const { client, server } = await handshake(identity(SERVER), identity(CLIENT));
  if (typeof client === "string" || typeof server === "string" || "why" in server)
    throw new Error("no handshake");
  return { client, server };
}

class Reader {
  readonly region = Buffer.alloc(64 * 1024);
  readonly received: Buffer[] = [];
  readonly events: string[] = [];
  calls = 0;
  seen: (bytes: Uint8Array) => void = () => {};
  readonly listener: ChannelListener = {
    space: () => this.region,
    data: (bytes) => {
      this.calls++;
      this.received.push(Buffer.from(bytes));
      this.seen(bytes);
    },
    drained: () => {},
    ended: () => this.events.push("ended"),
    failed: (error) => this.events.push(`failed: ${error.message}`),
  };

  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }
}

describe("who is let in", () => {
  test("both sides learn who the other one is, and have a secret of the connection in common", async () => {
    const first = await secured();
    expect(first.client.socket.getProtocol()).toBe("TLSv1.3");
    expect(first.server.peer.title).toBe("client.example");
    expect(first.server.peer.isNamed("client.example")).toBe(true);
    expect(first.server.peer.isNamed("server.example")).toBe(false);
    expect(first.client.peer.isNamed("127.0.0.1")).toBe(true);
    expect(first.client.peer.fingerprint).toMatch(/^[0-9a-f]{64}$/);
    expect(first.client.binding).toMatch(/^[0-9a-f]{32}$/);
    expect(first.client.binding).toBe(first.server.binding);
    const second = await secured();
    expect(second.client.binding).not.toBe(first.client.binding);
    expect(second.client.peer.fingerprint).toBe(first.client.peer.fingerprint);
  });

  test("a name of more than one name in a certificate is one name", async () => {
    const trick = authority.issue(["evil.example, DNS:client.example"]);
    const { server } = await handshake(identity(SERVER), identity(trick));
    expect((server as SecureConnection).peer.isNamed("client.example")).toBe(false);
  });

  test("a certificate that is on the list of revoked ones is refused, at either side, and others are not", async () => {
    const revoked = authority.revoke([CLIENT, authority.issue(["server.example"])]);
    const strict = (host: HostCertificate) => ({ ...identity(host), revoked });
    const refused = await handshake(strict(SERVER), identity(CLIENT));
    expect((refused.server as RejectedConnection).why).toBe("it has been revoked");
    const other = await handshake(strict(SERVER), identity(authority.issue(["client.example"])));
    expect(other.server).toHaveProperty("peer");

    const ofServer = { ...identity(CLIENT), revoked: authority.revoke([SERVER]) };
    const { client } = await handshake(identity(SERVER), ofServer);
    expect(client).toMatch(/^TLS_PEER_REJECTED: .*: it has been revoked$/);
    const accepted = await handshake(identity(SERVER), { ...ofServer, revoked: authority.revoke([CLIENT]) });
    expect(accepted.client).toHaveProperty("peer");
  });

  test("a list of revoked certificates that is out of date lets nobody in, and says so", async () => {
    const revoked = authority.revoke([], daysFromNow(-0.5));
    const { server } = await handshake({ ...identity(SERVER), revoked }, identity(CLIENT));
    expect((server as RejectedConnection).why).toBe(
      "the list of revoked certificates (ca-crl.pem) has expired",
    );
  });

  const forged = new Authority(authority.subject);
  const bad: [string, HostCertificate, RegExp][] = [
    ["has expired", authority.issue(["127.0.0.1"], { notAfter: daysFromNow(-0.5) }), /it has expired/],
    [
      "is not valid yet",
      authority.issue(["127.0.0.1"], { notBefore: daysFromNow(0.5) }),
      /it is not valid yet/,
    ],
    ["is another authority's", stranger.issue(["127.0.0.1"]), /its authority is not one that is trusted/],
    ["is forged in our authority's name", forged.issue(["127.0.0.1"]), /authority/],
    ["vouches for itself", selfSigned("127.0.0.1"), /it vouches for itself/],
  ];

  test.each(bad)("the client turns away a server whose certificate %s", async (_, certificate, words) => {
    const { client } = await handshake(identity(certificate), identity(CLIENT));
    expect(client).toMatch(/^TLS_PEER_REJECTED: The certificate of the peer at 127.0.0.1 is not accepted: /);
    expect(client).toMatch(words);
  });

  test.each(bad)("the server turns away a client whose certificate %s", async (_, certificate, words) => {
    const { server } = await handshake(identity(SERVER), identity(certificate));
    expect((server as RejectedConnection).why).toMatch(words);
  });

  test("the client turns away a server whose certificate is for another name or address", async () => {
    for (const host of ["other.example", "127.0.0.2"]) {
      const { client } = await handshake(identity(SERVER), identity(CLIENT), host);
      expect(client).toMatch(/^TLS_PEER_REJECTED: .* is not accepted: it is for another name$/);
    }
    const { client } = await handshake(identity(SERVER), identity(CLIENT), "server.example");
    expect(typeof client).toBe("object");
  });

  test("a client without a certificate is turned away", async () => {
    const [accepted, connecting] = await connected();
    const bare = tls.connect({ socket: connecting, rejectUnauthorized: false });
    bare.on("error", () => {});
    sockets.push(bare);
    const server = await secureServer(accepted, identity(SERVER), TIMEOUT_MS);
    expect(server).toMatchObject({ why: "it has presented none" });
  });

  test("pinned: the paired certificate is accepted under any name, any other one is not", async () => {
    const [server, client, other] = [selfSigned("server"), selfSigned("client"), selfSigned("server")];
    const good = await handshake(pinned(server, client), pinned(client, server), "any.example");
    expect((good.client as SecureConnection).peer.title).toBe("paired");
    const { peer } = good.server as SecureConnection;
    expect([peer.isNamed("paired"), peer.isNamed("client")]).toEqual([true, false]);
    const badServer = await handshake(pinned(other, client), pinned(client, server), "server");
    expect(badServer.client).toMatch(/^TLS_PEER_REJECTED: .*it vouches for itself/);
    const badClient = await handshake(pinned(server, other), pinned(client, server));
    expect(badClient.server).toMatchObject({ why: expect.stringMatching(/it vouches for itself/) });
    // Vouched for by one that is pinned is not the one that is pinned.
    const vouched = authority.issue(["server"], { issuer: { subject: "server", key: server.key } });
    const viaServer = await handshake(pinned(vouched, client), pinned(client, server), "server");
    expect(viaServer.client).toMatch(/^TLS_PEER_REJECTED: /);
  });
});

describe("who does not speak TLS 1.3", () => {
  test("plain text is no TLS, from either side", async () => {
    const [accepted, connecting] = await connected();
    connecting.write("DV plain as day, and long enough for a record's header");
    await expect(secureServer(accepted, identity(SERVER), TIMEOUT_MS)).rejects.toMatchObject({
      code: "TLS_FAILED",
      message: "TLS handshake failed: what the peer says is not TLS",
    });
    const [other, asClient] = await connected();
    other.write("DV plain as day, and long enough for a record's header");
    await expect(secureClient(asClient, identity(CLIENT), "127.0.0.1", TIMEOUT_MS)).rejects.toMatchObject({
      code: "TLS_FAILED",
      message: "TLS with the peer at 127.0.0.1 failed: what the peer says is not TLS",
    });
  });

  test("TLS 1.2 is not spoken", async () => {
    const [accepted, connecting] = await connected();
    const { key, certificate } = identity(CLIENT);
    const old = tls.connect({
      socket: connecting,
      key,
      cert: certificate,
      maxVersion: "TLSv1.2",
      rejectUnauthorized: false,
    });
    old.on("error", () => {});
    sockets.push(old);
    await expect(secureServer(accepted, identity(SERVER), TIMEOUT_MS)).rejects.toMatchObject({
      code: "TLS_FAILED",
    });
  });

  test("who says nothing, or hangs up, does not hold the other side for longer than it was told", async () => {
    const [accepted, connecting] = await connected();
    await expect(secureServer(accepted, identity(SERVER), 50)).rejects.toMatchObject({ code: "TLS_FAILED" });
    const [, quiet] = await connected();
    await expect(secureClient(quiet, identity(CLIENT), "127.0.0.1", 50)).rejects.toMatchObject({
      message: "TLS with 127.0.0.1 was not there within 50 ms",
    });
    const [leaving, left] = await connected();
    leaving.destroy();
    await expect(secureClient(left, identity(CLIENT), "127.0.0.1", TIMEOUT_MS)).rejects.toMatchObject({
      code: "TLS_FAILED",
    });
    connecting.destroy();
  });
});

describe("as a channel", () => {
  test("bytes arrive as they were, with pauses that hold, both ways, to the end", async () => {
    const { client, server } = await secured();
    const channels = [new SocketChannel(client.socket), new SocketChannel(server.socket)];
    const readers = channels.map((channel) => {
      const reader = new Reader();
      let isPaused = false;
      reader.seen = (bytes) => {
        expect(isPaused).toBe(false);
        // Often just after it has gone on, too.
        if (reader.calls % 7 > 1) return;
        isPaused = true;
        channel.pause();
        const before = Buffer.from(bytes);
        const resume = () => {
          // They stay as they are until then.
          expect(before.equals(bytes)).toBe(true);
          isPaused = false;
          channel.resume();
        };
        if (reader.calls % 2 === 0) setImmediate(resume);
        else setTimeout(resume, 2);
      };
      channel.listen(reader.listener);
      return reader;
    });
    for (const channel of channels) {
      for (let at = 0; at < CONTENT.length; at += 200_000) channel.write(CONTENT.subarray(at, at + 200_000));
      channel.end();
    }
    await expect
      .poll(() => readers.map(({ events }) => events), { timeout: 30_000 })
      .toEqual([["ended"], ["ended"]]);
    for (const { bytes } of readers) expect(bytes.equals(CONTENT)).toBe(true);
  });

  test("records are handed over together, not one by one", async () => {
    const { client, server } = await secured();
    const [from, to] = [new SocketChannel(client.socket), new SocketChannel(server.socket)];
    const reader = new Reader();
    to.listen(reader.listener);
    from.listen(new Reader().listener);
    from.write(CONTENT);
    from.end();
    await expect.poll(() => reader.events).toEqual(["ended"]);
    expect(reader.bytes.equals(CONTENT)).toBe(true);
    expect(reader.calls).toBeLessThan(CONTENT.length / RECORD_BYTES_MAX / 2);
  });

  test("what comes before anybody listens is not lost", async () => {
    const { client, server } = await secured();
    const from = new SocketChannel(client.socket);
    const to = new SocketChannel(server.socket);
    from.write(CONTENT.subarray(0, 100_000));
    from.end();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const reader = new Reader();
    to.listen(reader.listener);
    await expect.poll(() => reader.events).toEqual(["ended"]);
    expect(reader.bytes.equals(CONTENT.subarray(0, 100_000))).toBe(true);
  });

  test("a connection that breaks before anybody listens is told of to whoever does, and ends nothing else", async () => {
    const { client } = await secured();
    const channel = new SocketChannel(client.socket);
    client.socket.destroy(new Error("reset by the peer"));
    await new Promise((resolve) => client.socket.once("close", resolve));
    const reader = new Reader();
    channel.listen(reader.listener);
    await expect.poll(() => reader.events).toEqual(["failed: reset by the peer"]);
  });

  test("a byte that is changed on the way is found, and nothing after it is believed", async () => {
    let flipAt = Number.POSITIVE_INFINITY;
    let carried = 0;
    const [accepted, connecting] = await connected(async ({ port }) => {
      const relay = net.createServer((from) => {
        const to = net.connect(port, "127.0.0.1");
        for (const socket of [from, to]) socket.on("error", () => {});
        from.on("data", (bytes) => {
          if (flipAt >= carried && flipAt < carried + bytes.length) bytes[flipAt - carried]! ^= 1;
          carried += bytes.length;
          to.write(bytes);
        });
        to.on("data", (bytes) => from.write(bytes));
        sockets.push(from, to);
      });
      sockets.push({ destroy: () => relay.close() });
      await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
      return (relay.address() as net.AddressInfo).port;
    });
    const [client, server] = await Promise.all([
      secureClient(connecting, identity(CLIENT), "127.0.0.1", TIMEOUT_MS),
      secureServer(accepted, identity(SERVER), TIMEOUT_MS) as Promise<SecureConnection>,
    ]);
    const [from, to] = [new SocketChannel(client.socket), new SocketChannel(server.socket)];
    const reader = new Reader();
    to.listen(reader.listener);
    from.listen(new Reader().listener);
    flipAt = carried + 500_000;
    from.write(CONTENT);
    await expect.poll(() => reader.events).toEqual([expect.stringMatching(/^failed: .*bad record mac/i)]);
    const { bytes } = reader;
    expect(bytes.length).toBeLessThan(500_000);
    expect(bytes.equals(CONTENT.subarray(0, bytes.length))).toBe(true);
  });
});
