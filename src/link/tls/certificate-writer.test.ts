// Certificates that we write are what OpenSSL reads.

import { generateKeyPairSync, X509Certificate } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { writeCertificate } from "./certificate-writer.ts";

const newKey = () => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
const authorityKey = newKey();
const hostKey = newKey();
const AUTHORITY = { subject: "Test authority", key: authorityKey };
const validity = { notBefore: new Date("2026-01-02T03:04:05Z"), notAfter: new Date("2049-12-31T23:59:59Z") };

test("what it says is read again by OpenSSL: names, addresses, validity, purpose, key", () => {
  const names = ["host1.example.com", "192.0.2.7", "2001:db8::17", "::1"];
  const pem = writeCertificate({ subject: "host1 – Ü", names, key: hostKey, issuer: AUTHORITY, ...validity });
  const read = new X509Certificate(pem);
  expect(read.subject).toBe("CN=host1 – Ü");
  expect(read.issuer).toBe("CN=Test authority");
  expect(read.checkHost("host1.example.com")).toBe("host1.example.com");
  expect(read.checkHost("host2.example.com")).toBeUndefined();
  for (const address of names.slice(1)) expect(read.checkIP(address)).toBe(address);
  expect(read.checkIP("192.0.2.8")).toBeUndefined();
  expect(new Date(read.validFrom)).toEqual(validity.notBefore);
  expect(new Date(read.validTo)).toEqual(validity.notAfter);
  expect(read.ca).toBe(false);
  expect(read.checkPrivateKey(hostKey)).toBe(true);
  expect(read.checkPrivateKey(authorityKey)).toBe(false);
});

test("an authority's certificate vouches for what it has signed, and for nothing else", () => {
  const authority = new X509Certificate(
    writeCertificate({ ...AUTHORITY, names: [], ...validity, isAuthority: true }),
  );
  const content = { subject: "host", names: ["host"], key: hostKey, ...validity };
  const signed = new X509Certificate(writeCertificate({ ...content, issuer: AUTHORITY }));
  expect(authority.ca).toBe(true);
  expect(signed.checkIssued(authority)).toBe(true);
  expect(signed.verify(authority.publicKey)).toBe(true);
  const forged = new X509Certificate(
    writeCertificate({ ...content, issuer: { ...AUTHORITY, key: hostKey } }),
  );
  expect(forged.verify(authority.publicKey)).toBe(false);
});

test("validity beyond 2050 is written as RFC 5280 wants it", () => {
  const notAfter = new Date("2051-06-07T08:09:10Z");
  const read = new X509Certificate(
    writeCertificate({ subject: "host", names: [], key: hostKey, ...validity, notAfter }),
  );
  expect(new Date(read.validTo)).toEqual(notAfter);
});

test("serial numbers differ, and names of any length are read again", () => {
  const serials = new Set<string>();
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,60}$/);
  const runs = 50;
  fc.assert(
    fc.property(name, fc.array(name, { maxLength: 12 }), (subject, names) => {
      const read = new X509Certificate(writeCertificate({ subject, names, key: hostKey, ...validity }));
      expect(read.subject).toBe(`CN=${subject}`);
      expect(read.subjectAltName ?? "").toBe(names.map((each) => `DNS:${each}`).join(", "));
      expect(read.verify(read.publicKey)).toBe(true);
      serials.add(read.serialNumber);
    }),
    { numRuns: runs },
  );
  expect(serials.size).toBe(runs);
});
