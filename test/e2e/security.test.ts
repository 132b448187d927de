// Bad peers and bad files, one after the other, at a guest that works on: each is turned away with a word on why, none
// disturbs the guest, or `deltavee receive`, which at the end takes it in from the one that may hand it over. What each
// got stands in SECURITY.md: the test fails where that is not what it has seen; UPDATE_RELIABILITY=1 renews it.

import { chmodSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import net from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { describe, expect, onTestFinished, test } from "vitest";
import { newCode } from "../../src/cli/pairing/exchange.ts";
import { meetAt } from "../../src/cli/pairing/meeting.ts";
import { PairedKeys } from "../../src/library/paired-keys.ts";
import { parseAddress } from "../../src/link/address.ts";
import { encodeFrame } from "../../src/wire/frame.ts";
import { helloFrame } from "../../src/wire/handshake.ts";
import {
  Authority,
  daysFromNow,
  type HostCertificate,
  keyPem,
  newKey,
  writeTlsFolder,
} from "../support/certificates.ts";
import { documentedTable } from "../support/fault-table.ts";
import {
  destinationFor,
  type Ended,
  ended,
  listeningAddress,
  receiveArguments,
} from "../support/migration.ts";
import { type CliRun, freePort, runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { HEARTBEATS, LIGHT_LOAD, startPair } from "./scene.ts";

const qemu = findQemus().get("10.0");
const VM = "web-3";
const SESSION = "00112233445566778899aabbccddeeff";
const PLAIN_HELLO = encodeFrame(
  helloFrame({
    deltavee: "test",
    session: SESSION,
    hypervisor: { kind: "qemu", version: "10.0.2" },
    entropyCodecs: [1],
  }),
);

async function cli(...commandArguments: string[]): Promise<CliRun> {
  const run = await runCli(commandArguments);
  onTestFinished(async () => void (await run.stop()));
  return run;
}

/** The first line of what went wrong, and its reason, without what differs from run to run. */
function words({ stderr }: Ended, folder: string): string {
  const lines = stderr.split("\n").filter((line) => !line.startsWith("  the VM is"));
  return (
    lines
      .map((line) => line.replace("deltavee: ", "").replace("  because: ", ""))
      .join(" – ")
      .replaceAll(`${folder}/`, "")
      // By what was still unread when the connection ended.
      .replace(/LINK_(?:CLOSED|FAILED): .*/, "LINK_CLOSED or LINK_FAILED")
      .replace(/\d{4,5}/g, "PORT")
      .replace(/[A-Z][a-z]{2} .?\d .{8} PORT GMT|[A-Z][a-z]{2} +\d+ [\d:]{8} \w+ GMT/g, "DATE")
      .replaceAll("|", "\\|")
  );
}

class Table {
  readonly #rows: string[][] = [];

  note(tried: string, exitCode: number | null, said: string, guest: string): void {
    this.#rows.push([tried, exitCode === null ? "–" : String(exitCode), said, guest]);
  }

  get markdown(): string {
    const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
    const head = ["tried", "exit code", "what it got", "guest"];
    return [line(head), `|${"---|".repeat(head.length)}`, ...this.#rows.map(line)].join("\n");
  }
}

describe.skipIf(qemu === undefined)("bad peers and bad files", () => {
  test("each is turned away, and the guest works on until the right one moves it", async () => {
    const table = new Table();
    const { path: folder, remove } = tempFolder();
    onTestFinished(remove);
    const { source, destination } = await startPair({
      binary: qemu!,
      append: LIGHT_LOAD,
      memoryMiB: 64,
      extraArguments: ["-name", VM],
    });
    const authority = new Authority("our authority");
    const stranger = new Authority("another authority");
    const files = (name: string, host: HostCertificate, by = authority) =>
      writeTlsFolder(join(folder, name), by, host);
    const receiver = files("receiver", authority.issue(["127.0.0.1"]));
    const good = files("source", authority.issue(["source.example"]));
    const calledBack = authority.issue(["source.example"]);
    writeFileSync(join(receiver, "ca-crl.pem"), authority.revoke([calledBack]));
    const pagePort = await freePort();

    const receive = await cli(
      ...["receive", ...receiveArguments(destination), "--tls-dir", receiver, "--json"],
      ...["--allow", `source.example=${VM}`, "--allow", "elsewhere.example=db-1"],
      ...["--state-dir", join(folder, "receiver-state"), "--ui", `127.0.0.1:${pagePort}`],
    );
    const address = await listeningAddress(receive);
    const to = destinationFor("tunnel", address);
    const migrate = async (...more: string[]) =>
      ended(
        await cli(
          ...["migrate", "--qmp", source.toolQmp.path, "--quiet", "--state-dir", join(folder, "state")],
          ...(more.includes("--to") ? [] : ["--to", to]),
          ...more,
        ),
      );
    const tryIt = async (tried: string, ...more: string[]) => {
      const end = await migrate(...more);
      expect(end.code, end.stderr).not.toBe(0);
      table.note(tried, end.code, words(end, folder), await whereIs(source, destination));
    };

    // Own files.
    const tls = (name: string) => ["--tls-dir", join(folder, name)];
    await tryIt("source without files", "--tls-dir", join(folder, "none"));
    const readable = files("readable", authority.issue(["source.example"]));
    chmodSync(join(readable, "client-key.pem"), 0o644);
    await tryIt("source whose key everybody may read", ...tls("readable"));
    files("mixed", { ...authority.issue(["source.example"]), key: newKey() });
    await tryIt("source whose key is of another certificate", ...tls("mixed"));
    files("late", authority.issue(["source.example"], { notAfter: daysFromNow(-0.5) }));
    await tryIt("source whose own certificate has expired", ...tls("late"));
    files("early", authority.issue(["source.example"], { notBefore: daysFromNow(0.5) }));
    await tryIt("source whose own certificate is not valid yet", ...tls("early"));
    // Sources that the destination does not take.
    files("foreign", stranger.issue(["source.example"]), authority);
    await tryIt("source of another authority", ...tls("foreign"));
    const own = newKey();
    files("selfmade", authority.issue(["source.example"], { key: own, issuer: { subject: "x", key: own } }));
    await tryIt("source that vouches for itself", ...tls("selfmade"));
    files("called-back", calledBack);
    await tryIt("source whose certificate was called back", ...tls("called-back"));
    files("unlisted", authority.issue(["unlisted.example"]));
    await tryIt("source that may hand nothing over", ...tls("unlisted"));
    files("elsewhere", authority.issue(["elsewhere.example"]));
    await tryIt("source that may hand over another VM only", ...tls("elsewhere"));
    await tryIt("source that speaks plain text", "--insecure-plaintext");
    // Destinations that the source does not take.
    await tryIt(
      "destination whose certificate is for another name",
      ...tls("source"),
      "--tls-hostname",
      "web.example",
    );
    for (const [tried, host] of [
      [
        "destination whose certificate has expired",
        authority.issue(["127.0.0.1"], { notAfter: daysFromNow(-1) }),
      ],
      [
        "destination whose certificate is not valid yet",
        authority.issue(["127.0.0.1"], { notBefore: daysFromNow(1) }),
      ],
      ["destination of another authority", stranger.issue(["127.0.0.1"])],
    ] as const) {
      const impostor = await tlsServer(host, authority);
      await tryIt(tried, ...tls("source"), "--to", `deltavee://127.0.0.1:${impostor}`);
    }
    const old = authority.issue(["127.0.0.1"]);
    const careful = files("careful", authority.issue(["source.example"]));
    writeFileSync(join(careful, "ca-crl.pem"), authority.revoke([old]));
    const impostor = await tlsServer(old, authority);
    await tryIt(
      "destination whose certificate was called back",
      ...tls("careful"),
      "--to",
      `deltavee://127.0.0.1:${impostor}`,
    );
    writeFileSync(join(careful, "ca-crl.pem"), authority.revoke([], daysFromNow(-0.5)));
    await tryIt("source whose list of what was called back is out of date", ...tls("careful"));
    const plain = await server((socket) => socket.end("DV plain text, longer than a header of TLS"));
    await tryIt(
      "destination that speaks plain text",
      ...tls("source"),
      "--to",
      `deltavee://127.0.0.1:${plain}`,
    );
    const hangsUp = await server((socket) => socket.destroy());
    await tryIt("destination that hangs up", ...tls("source"), "--to", `deltavee://127.0.0.1:${hangsUp}`);
    await tryIt(
      "plain text to another host, unasked",
      "--to",
      "deltavee://192.0.2.1:4445",
      "--keys-dir",
      join(folder, "no"),
    );

    // Strangers at the destination: garbage, silence, and a handshake that stops half way.
    const { port } = new URL(to.replace("deltavee:", "http:"));
    for (const [tried, bytes] of [
      ["garbage to the destination", Buffer.alloc(4096, 0x5a)],
      ["HELLO in plain text to the destination", Buffer.from(PLAIN_HELLO)],
      ["HTTP to the destination", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ] as const) {
      const heard = await knock(Number(port), bytes);
      table.note(tried, null, heard, await whereIs(source, destination));
    }
    // Its page, which asks nobody who he is.
    for (const [tried, path, headers] of [
      ["the page of `receive`, by a name that somebody else points here", "/", { host: "evil.example" }],
      ["the page, fetched by a page of another site", "/runs", { "sec-fetch-site": "cross-site" }],
      ["the page, for a file beside it", "/dashboard/%2e%2e/%2e%2e/package.json", {}],
      ["the page, with a header of 9 KiB", "/", { "x-long": "x".repeat(9 * 1024) }],
    ] as const) {
      table.note(tried, null, await pageSays(pagePort, path, headers), await whereIs(source, destination));
    }
    // Guesses at the code of a pairing, all at the same time.
    const pairing = await cli(
      "pair",
      "--listen",
      "127.0.0.1:0",
      "--json",
      "--keys-dir",
      join(folder, "keys"),
    );
    const meeting = parseAddress(await listeningAddress(pairing));
    const guesser = PairedKeys.create(join(folder, "guesser")).own();
    const guess = () => meetAt(meeting, { keys: guesser, code: newCode(), name: "guesser" });
    const guesses = await Promise.allSettled(Array.from({ length: 12 }, guess));
    expect(guesses.filter(({ status }) => status === "fulfilled")).toEqual([]);
    const paired = await ended(pairing);
    // Those who were turned away are told of, too.
    const stderr = paired.stderr
      .split("\n")
      .filter((line) => !line.startsWith("pair: "))
      .join("\n");
    table.note(
      "12 guesses at once at the code of a pairing",
      paired.code,
      words({ ...paired, stderr }, folder),
      await whereIs(source, destination),
    );

    const silent = Array.from({ length: 80 }, () => net.connect(Number(port), "127.0.0.1"));
    for (const socket of silent) socket.on("error", () => {}).unref();
    onTestFinished(() => {
      for (const socket of silent) socket.destroy();
    });
    for (const socket of silent.slice(40)) socket.write(Buffer.from("16030100c8", "hex"));

    const end = await migrate("--tls-dir", good);
    expect(end).toMatchObject({ code: 0, stderr: "" });
    await destination.waitForHeartbeats(HEARTBEATS);
    table.note(
      "the right source, while 80 strangers are silent",
      0,
      "moved",
      await whereIs(source, destination),
    );
    expect(await ended(receive)).toMatchObject({ code: 0 });
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    expect(documentedTable("bad-peers", table.markdown, "SECURITY.md")).toBe(table.markdown);
  });
});

/** Asked of both hypervisors. */
async function whereIs(source: QemuVm, destination: QemuVm): Promise<string> {
  const [here, there] = await Promise.all(
    [source, destination].map(async ({ qmp }) => (await qmp.execute("query-status")).status),
  );
  if (here === "running" && there === "inmigrate") return "runs at the source";
  if (here === "postmigrate" && there === "running") return "runs at the destination";
  return `source: ${here}, destination: ${there}`;
}

async function server(onConnection: (socket: net.Socket) => void): Promise<number> {
  const listening = net.createServer((socket) => {
    socket.on("error", () => {});
    onConnection(socket);
  });
  onTestFinished(() => void listening.close());
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  return (listening.address() as net.AddressInfo).port;
}

/** Presents this certificate, and is not reached by what comes after. */
async function tlsServer({ key, certificate }: HostCertificate, authority: Authority): Promise<number> {
  const options = { key: keyPem(key), cert: certificate, ca: authority.certificate, requestCert: true };
  const listening = tls.createServer(options, (socket) => socket.on("error", () => {}));
  listening.on("tlsClientError", () => {});
  onTestFinished(() => void listening.close());
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  return (listening.address() as net.AddressInfo).port;
}

/** What the page answers. */
function pageSays(port: number, path: string, headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: "127.0.0.1", path, headers }, async (response) => {
      const body = Buffer.concat(await response.toArray())
        .toString()
        .trim();
      resolve(`HTTP ${response.statusCode}${body === "" ? "" : `: ${body}`}`);
    });
    asked.on("error", reject).end();
  });
}

/** What a peer that is no source hears: nothing of use. */
async function knock(port: number, bytes: Uint8Array): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  let heardBytes = 0;
  socket.on("data", (data) => {
    heardBytes += data.length;
  });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(bytes);
  await closed;
  return heardBytes <= 7 ? "closed, a TLS alert at most" : `closed after ${heardBytes} bytes`;
}
