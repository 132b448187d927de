// The certificates of a folder, and keys of paired hosts, before a migration needs them: what TLS itself would refuse, and
// what it would refuse soon. The judge of a whole folder is OpenSSL: both sides are connected with each other.

import { X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { connect, createServer, isIP, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { toError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import { PairedKeys } from "../../library/paired-keys.ts";
import { readTlsFolder, type TlsIdentity, type TlsSide } from "../../link/tls/identity.ts";
import { secureClient, secureServer } from "../../link/tls/secure.ts";
import type { Finding } from "./finding.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const EXPIRES_SOON_MS = 30 * DAY_MS;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Written by a group or by anybody. */
const WRITABLE_BITS = 0o022;
const CHECK = "certificates";

export interface CertificateContext {
  /** By which others may call this host. */
  readonly hostNames: readonly string[];
  readonly now?: Date;
}

/** All findings about a folder that --tls-dir names; none of them means that there is nothing to say but good. */
export async function checkTlsFolder(
  folder: string,
  { hostNames, now = new Date() }: CertificateContext,
): Promise<Finding[]> {
  const sides = (["server", "client"] as const).filter((side) => hasSide(folder, side));
  if (sides.length === 0) {
    return [
      problem(
        `${folder} holds neither server-cert.pem nor client-cert.pem`,
        "Make them as QEMU documents it",
      ),
    ];
  }
  const findings: Finding[] = [];
  const identities = new Map<TlsSide, TlsIdentity>();
  for (const side of sides) {
    try {
      identities.set(side, readTlsFolder(folder, side, now));
    } catch (thrown) {
      findings.push(problem(toError(thrown).message, `Put that right in ${folder}`));
    }
  }
  const files = ["ca-cert.pem", ...sides.flatMap((side) => [`${side}-cert.pem`, `${side}-key.pem`])];
  findings.push(...files.flatMap((name) => checkMode(join(folder, name))));
  const certificates = ["ca-cert.pem", ...sides.map((side) => `${side}-cert.pem`)];
  findings.push(...certificates.flatMap((name) => checkExpiry(join(folder, name), now)));
  const server = identities.get("server");
  if (server !== undefined) findings.push(...checkNames(server.certificate, hostNames));
  const client = identities.get("client");
  if (server !== undefined && client !== undefined) findings.push(...(await checkHandshake(server, client)));
  else for (const [side, identity] of identities) findings.push(...checkIssuer(side, identity));
  if (findings.length > 0) return findings;
  return [
    { check: CHECK, level: "ok", says: `${folder}: ${sides.join(" and ")}, accepted and valid for long` },
  ];
}

/** `asked`: --keys-dir. Without it, a host that was never paired is none that needs to be told about. */
export function checkPairedKeys(asked: string | undefined): Finding[] {
  try {
    const keys = PairedKeys.find(asked);
    const pinned = keys?.identity()?.pinned;
    if (pinned !== undefined) {
      const names = [...pinned.values()];
      const says = `paired with ${names.join(", ")}`;
      return [{ check: "pairing", level: "ok", says, values: { hosts: names } }];
    }
    if (asked === undefined) return [];
    const says = `this host has not been paired with any other (${asked})`;
    return [{ check: "pairing", level: "problem", says, advice: "Pair them: deltavee pair" }];
  } catch (thrown) {
    const advice = "Keys are used by nobody but their owner";
    return [{ check: "pairing", level: "problem", says: toError(thrown).message, advice }];
  }
}

function hasSide(folder: string, side: TlsSide): boolean {
  return ["cert", "key"].some(
    (what) => statSync(join(folder, `${side}-${what}.pem`), { throwIfNoEntry: false }) !== undefined,
  );
}

function checkMode(file: string): Finding[] {
  const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & WRITABLE_BITS) === 0) return [];
  return [
    {
      check: CHECK,
      level: "warning",
      says: `${file} can be written by others (mode ${(mode & 0o777).toString(8)})`,
      means: "Whoever can write it decides whom this host trusts, or takes it for",
      advice: `chmod go-w ${file}`,
    },
  ];
}

function checkExpiry(file: string, now: Date): Finding[] {
  const certificate = readCertificate(file);
  if (certificate === undefined) return [];
  const leftMs = new Date(certificate.validTo).getTime() - now.getTime();
  const advice = "Renew it, on every host that trusts it if it is the authority's";
  if (leftMs <= 0) {
    // Of a host's own certificate its reader has said so already.
    return file.endsWith("ca-cert.pem")
      ? [problem(`${file} has expired on ${certificate.validTo}`, advice)]
      : [];
  }
  if (leftMs > EXPIRES_SOON_MS) return [];
  const says = `${file} expires in ${leftMs < DAY_MS ? formatMs(leftMs) : `${Math.floor(leftMs / DAY_MS)} days`}`;
  const means = "No tunnel can be made with it from then on";
  return [{ check: CHECK, level: "warning", says, means, advice }];
}

function checkNames(pem: string, hostNames: readonly string[]): Finding[] {
  const certificate = new X509Certificate(pem);
  const isFor = (name: string) =>
    (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined;
  if (hostNames.length === 0 || hostNames.some(isFor)) return [];
  const names = certificate.subjectAltName ?? "no name at all";
  return [
    {
      check: CHECK,
      level: "warning",
      says: `the server's certificate is for ${names}; this host is called ${hostNames.join(", ")}`,
      means: "A source that connects to this host by such a name refuses it",
      advice: "Have it issued for the name that sources use, or let them say --tls-hostname",
    },
  ];
}

function checkIssuer(side: TlsSide, { certificate, trusted }: TlsIdentity): Finding[] {
  const own = new X509Certificate(certificate);
  const isIssuedBy = (pem: string) => {
    const authority = new X509Certificate(pem);
    return own.checkIssued(authority) && own.verify(authority.publicKey);
  };
  // Between them there may be others, which come behind the certificate in its file.
  const between = certificate.match(/-----BEGIN CERTIFICATE-----/g)!.length > 1;
  if (between || trusted.some(isIssuedBy)) return [];
  return [problem(`${side}-cert.pem was not issued by the authority of ca-cert.pem`, "Put the two together")];
}

/** A connection on loopback between both sides of this host: what one refuses in the other, a peer would refuse, too. */
async function checkHandshake(server: TlsIdentity, client: TlsIdentity): Promise<Finding[]> {
  const name = ownNameOf(server.certificate);
  if (name === undefined) return [];
  let listener: Server | undefined;
  try {
    const [ours, theirs] = await socketPair((made) => {
      listener = made;
    });
    const [asServer, asClient] = await Promise.allSettled([
      secureServer(theirs, server, HANDSHAKE_TIMEOUT_MS),
      secureClient(ours, client, name, HANDSHAKE_TIMEOUT_MS),
    ]);
    for (const socket of [ours, theirs]) socket.destroy();
    const refusals: string[] = [];
    if (asClient.status === "rejected") refusals.push(toError(asClient.reason).message);
    if (asServer.status === "fulfilled" && "why" in asServer.value)
      refusals.push(`the client's certificate is not accepted by this host itself: ${asServer.value.why}`);
    if (asServer.status === "rejected" && asClient.status === "fulfilled")
      refusals.push(toError(asServer.reason).message);
    return refusals.map((says) => problem(says, "Have it issued anew, by the authority of ca-cert.pem"));
  } finally {
    listener?.close();
  }
}

function ownNameOf(pem: string): string | undefined {
  return /(?:DNS|IP Address):([^,\s]+)/.exec(new X509Certificate(pem).subjectAltName ?? "")?.[1];
}

function socketPair(opened: (listener: Server) => void): Promise<[Socket, Socket]> {
  return new Promise((resolve, reject) => {
    const server = createServer({ pauseOnConnect: true });
    opened(server);
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      if (address === null || typeof address === "string") return;
      const ours = connect(address.port, "127.0.0.1");
      ours.once("error", reject);
      const connected = new Promise<void>((done) => ours.once("connect", () => done()));
      server.once("connection", (theirs) => {
        theirs.on("error", () => {});
        void connected.then(() => {
          ours.off("error", reject);
          ours.on("error", () => {});
          resolve([ours, theirs]);
        });
      });
    });
  });
}

function readCertificate(file: string): X509Certificate | undefined {
  try {
    return new X509Certificate(readFileSync(file));
  } catch {
    // Its reader has said so already.
    return undefined;
  }
}

function problem(says: string, advice: string): Finding {
  return {
    check: CHECK,
    level: "problem",
    says,
    means: "Peers refuse this host, or it refuses them",
    advice,
  };
}
