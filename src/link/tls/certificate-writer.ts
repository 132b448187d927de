// Writes X.509 certificates (RFC 5280, DER): Node can read them only. Enough for a self-signed certificate of a host,
// and for a small certificate authority in tests; keys are ECDSA on P-256. Reads nothing: what a peer presents is taken
// apart by OpenSSL alone.

import { createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";
import { isIP } from "node:net";

export interface CertificateContent {
  /** Common name. */
  subject: string;
  /** DNS names and IP addresses that it holds for. */
  names: readonly string[];
  /** Whose it is: private, or public. */
  key: KeyObject;
  /** Who vouches for it; absent: it does itself, and `key` is private. */
  issuer?: { subject: string; key: KeyObject };
  notBefore: Date;
  notAfter: Date;
  /** It may vouch for others. */
  isAuthority?: boolean;
}

export const SEQUENCE = 0x30;
const SET = 0x31;
const BOOLEAN = 0x01;
export const INTEGER = 0x02;
export const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;
/** [n] with contents. */
const CONSTRUCTED = 0xa0;
/** Names in subjectAltName: [2] dNSName, [7] iPAddress. */
const DNS_NAME = 0x82;
const IP_ADDRESS = 0x87;

/** Object identifiers, tag and length included. */
const OID = {
  commonName: "0603550403",
  ecdsaWithSha256: "06082a8648ce3d040302",
  basicConstraints: "0603551d13",
  keyUsage: "0603551d0f",
  extendedKeyUsage: "0603551d25",
  subjectAltName: "0603551d11",
  serverAuth: "06082b06010505070301",
  clientAuth: "06082b06010505070302",
} as const;

/** One bit each, the first in the highest place; the number before them: bits of the last byte that are not used. */
const USAGE_DIGITAL_SIGNATURE = [7, 0x80];
const USAGE_SIGN_CERTIFICATES = [1, 0x06];

const VERSION_3 = 2;
const SERIAL_BYTES = 16;
/** RFC 5280, 4.1.2.5: from then on years have four digits. */
const UTC_TIME_ENDS = 2050;

/** The certificate as PEM. */
export function writeCertificate(content: CertificateContent): string {
  const {
    subject,
    names,
    key,
    issuer = { subject, key },
    notBefore,
    notAfter,
    isAuthority = false,
  } = content;
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  const algorithm = tlv(SEQUENCE, oid("ecdsaWithSha256"));
  const toBeSigned = tlv(
    SEQUENCE,
    tlv(CONSTRUCTED | 0, tlv(INTEGER, [VERSION_3])),
    tlv(INTEGER, serialNumber()),
    algorithm,
    nameOf(issuer.subject),
    tlv(SEQUENCE, time(notBefore), time(notAfter)),
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    tlv(CONSTRUCTED | 3, tlv(SEQUENCE, ...extensions(names, isAuthority))),
  );
  const signature = sign("sha256", toBeSigned, issuer.key);
  const der = tlv(SEQUENCE, toBeSigned, algorithm, tlv(BIT_STRING, [0], signature));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function extensions(names: readonly string[], isAuthority: boolean): Buffer[] {
  const constraints = isAuthority ? tlv(SEQUENCE, tlv(BOOLEAN, [0xff])) : tlv(SEQUENCE);
  const usage = isAuthority ? USAGE_SIGN_CERTIFICATES : USAGE_DIGITAL_SIGNATURE;
  const all = [
    extension("basicConstraints", true, constraints),
    extension("keyUsage", true, tlv(BIT_STRING, usage)),
  ];
  if (!isAuthority) {
    const purposes = tlv(SEQUENCE, oid("serverAuth"), oid("clientAuth"));
    all.push(extension("extendedKeyUsage", false, purposes));
  }
  if (names.length > 0) {
    all.push(extension("subjectAltName", false, tlv(SEQUENCE, ...names.map(alternativeName))));
  }
  return all;
}

function extension(name: keyof typeof OID, isCritical: boolean, value: Buffer): Buffer {
  const critical = isCritical ? [tlv(BOOLEAN, [0xff])] : [];
  return tlv(SEQUENCE, oid(name), ...critical, tlv(OCTET_STRING, value));
}

function alternativeName(name: string): Buffer {
  if (isIP(name) === 0) return tlv(DNS_NAME, Buffer.from(name, "latin1"));
  return tlv(IP_ADDRESS, isIP(name) === 4 ? name.split(".").map(Number) : ipv6Bytes(name));
}

function ipv6Bytes(address: string): number[] {
  const [before = "", after] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const [head, tail] = [groups(before), groups(after ?? "")];
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => "0");
  return [...head, ...zeros, ...tail].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}

export function nameOf(commonName: string): Buffer {
  const attribute = tlv(SEQUENCE, oid("commonName"), tlv(UTF8_STRING, Buffer.from(commonName)));
  return tlv(SEQUENCE, tlv(SET, attribute));
}

export function time(date: Date): Buffer {
  const text = `${date.toISOString().replace(/\.\d+|[-:T]/g, "")}`;
  if (date.getUTCFullYear() >= UTC_TIME_ENDS) return tlv(GENERALIZED_TIME, Buffer.from(text));
  return tlv(UTC_TIME, Buffer.from(text.slice(2)));
}

/** Positive, and in its shortest form: neither its sign bit nor the whole of its first byte is zero. */
function serialNumber(): Buffer {
  const bytes = randomBytes(SERIAL_BYTES);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes;
}

export function oid(name: keyof typeof OID): Buffer {
  return Buffer.from(OID[name], "hex");
}

/** A DER element. */
export function tlv(tag: number, ...contents: (Uint8Array | readonly number[])[]): Buffer {
  const body = Buffer.concat(contents.map((content) => Buffer.from(content as Uint8Array)));
  const length: number[] = [];
  for (let rest = body.length; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest % 256);
  const head = body.length < 0x80 ? [tag, body.length] : [tag, 0x80 | length.length, ...length];
  return Buffer.concat([Buffer.from(head), body]);
}
