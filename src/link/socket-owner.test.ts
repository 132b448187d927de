// Whose a connection from this host is: in tables as the kernel prints them, and in that of this very host.

import { connect, createServer, type Socket } from "node:net";
import { endianness } from "node:os";
import { afterEach, describe, expect, test } from "vitest";
import { peerUid, uidIn } from "./socket-owner.ts";

const HEAD =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const row = (local: string, remote: string, state: string, uid: number) =>
  `   1: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 12345 1 0000000000000000 20 4 30 10 -1\n`;
const OWN = { address: "127.0.0.1", port: 40_000 };
const OTHER = { address: "127.0.0.1", port: 49_990 };
const [LOCAL, REMOTE] = ["0100007F:9C40", "0100007F:C346"];

describe.skipIf(endianness() !== "LE")("in the kernel's table", () => {
  test("it is the user of the connection with both its ends", () => {
    const table =
      HEAD +
      row("0200007F:9C40", REMOTE, "01", 33) + // 127.0.0.2, of somebody else's, from the same port
      row(LOCAL, "0100007F:C347", "01", 34) +
      row(REMOTE, LOCAL, "01", 35) + // our own end of it
      row(LOCAL, REMOTE, "01", 64_055);
    expect(uidIn(table, OWN, OTHER)).toBe(64_055);
  });

  test.each(["04", "05", "06", "08"])("what has ended (state %s) has none: root is said of it", (state) => {
    expect(uidIn(HEAD + row(LOCAL, REMOTE, state, 0), OWN, OTHER)).toBeUndefined();
  });

  test("an IPv6 socket may have connected to an IPv4 one, and IPv6 to IPv6", () => {
    const mapped = "0000000000000000FFFF0000";
    const table = HEAD + row(mapped + LOCAL, mapped + REMOTE, "01", 7);
    expect(uidIn(table, OWN, OTHER)).toBe(7);
    expect(uidIn(table, { ...OWN, address: "::ffff:127.0.0.1" }, OTHER)).toBe(7);
    const loopback = "00000000000000000000000001000000";
    const six = HEAD + row(`${loopback}:9C40`, `${loopback}:C346`, "01", 8);
    expect(uidIn(six, { ...OWN, address: "::1" }, { ...OTHER, address: "::1" })).toBe(8);
  });

  test.each(["", HEAD, "nonsense", `${HEAD}  1: 0100007F:9C40`])(
    "where it is not, nothing is said: %j",
    (table) => {
      expect(uidIn(table, OWN, OTHER)).toBeUndefined();
    },
  );
});

describe.skipIf(process.platform !== "linux")("on this host", () => {
  const sockets: { destroy?(): void; close?(): void }[] = [];
  afterEach(() => {
    for (const each of sockets.splice(0)) (each.destroy ?? each.close)?.call(each);
  });

  test.each(["127.0.0.1", "::1"])("a connection to %s is our own", async (host) => {
    const server = createServer();
    sockets.push(server);
    const listening = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false)).listen({ host, port: 0 }, () => resolve(true));
    });
    // A host without IPv6.
    if (!listening) return;
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    sockets.push(connect({ host, port: (server.address() as { port: number }).port }));
    const socket = await accepted;
    sockets.push(socket);
    expect(await peerUid(socket)).toBe(process.getuid!());
  });
});
