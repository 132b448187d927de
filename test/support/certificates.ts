// Keys and certificates for tests of TLS, made when they are needed: a small authority, and folders as QEMU lays them
// out.

import { generateKeyPairSync, type KeyObject, sign, X509Certificate } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  BIT_STRING,
  type CertificateContent,
  INTEGER,
  nameOf,
  oid,
  SEQUENCE,
  time,
  tlv,
  writeCertificate,
} from "../../src/link/tls/certificate-writer.ts";

const DAY_MS = 24 * 60 * 60 * 1000;

export interface HostCertificate {
  key: KeyObject;
  /** PEM. */
  certificate: string;
}

export function newKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

export function daysFromNow(days: number): Date {
  return new Date(Date.now() + days * DAY_MS);
}

export class Authority {
  readonly subject: string;
  readonly key: KeyObject = newKey();
  readonly certificate: string;

  constructor(subject = "Authority of a test") {
    this.subject = subject;
    this.certificate = writeCertificate({
      subject,
      names: [],
      key: this.key,
      notBefore: daysFromNow(-100),
      notAfter: daysFromNow(100),
      isAuthority: true,
    });
  }

  /** Valid since yesterday and until tomorrow, unless told otherwise. */
  issue(names: readonly string[], content: Partial<CertificateContent> = {}): HostCertificate {
    const key = content.key ?? newKey();
    const certificate = writeCertificate({
      subject: names[0]!,
      names,
      notBefore: daysFromNow(-1),
      notAfter: daysFromNow(1),
      issuer: this,
      ...content,
      key,
    });
    return { key, certificate };
  }

  /** A list of certificates that are called back (RFC 5280, 5, version 1), PEM. */
  revoke(hosts: readonly HostCertificate[], nextUpdate = daysFromNow(1)): string {
    const since = daysFromNow(-1);
    const entries = hosts.map(({ certificate }) => {
      const serial = Buffer.from(new X509Certificate(certificate).serialNumber, "hex");
      return tlv(SEQUENCE, tlv(INTEGER, serial), time(since));
    });
    const algorithm = tlv(SEQUENCE, oid("ecdsaWithSha256"));
    // A list of none is left out.
    const list = entries.length === 0 ? [] : [tlv(SEQUENCE, ...entries)];
    const toBeSigned = tlv(
      SEQUENCE,
      algorithm,
      nameOf(this.subject),
      time(daysFromNow(-2)),
      time(nextUpdate),
      ...list,
    );
    const signature = sign("sha256", toBeSigned, this.key);
    const der = tlv(SEQUENCE, toBeSigned, algorithm, tlv(BIT_STRING, [0], signature));
    return `-----BEGIN X509 CRL-----\n${der.toString("base64")}\n-----END X509 CRL-----\n`;
  }
}

/** Both sides' files, as one host has them. */
export function writeTlsFolder(
  folder: string,
  authority: Authority,
  server: HostCertificate,
  client: HostCertificate = server,
): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "ca-cert.pem"), authority.certificate);
  for (const [side, { key, certificate }] of Object.entries({ server, client })) {
    writeFileSync(join(folder, `${side}-cert.pem`), certificate);
    writeFileSync(join(folder, `${side}-key.pem`), keyPem(key), { mode: 0o600 });
  }
  return folder;
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }) as string;
}
