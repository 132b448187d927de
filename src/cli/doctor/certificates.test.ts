// Folders of certificates with each of the things wrong with them that TLS would refuse, or refuse soon.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Authority, daysFromNow, writeTlsFolder } from "../../../test/support/certificates.ts";
import { PairedKeys } from "../../library/paired-keys.ts";
import { checkPairedKeys, checkTlsFolder } from "./certificates.ts";

const authority = new Authority();
const LONG = { notAfter: daysFromNow(90) };
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-doctor-tls-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const found = async (path = folder, hostNames = ["host1"]) =>
  (await checkTlsFolder(path, { hostNames })).map(
    ({ level, says }) => `${level}: ${says.replaceAll(folder, "F")}`,
  );

test("a folder that is well in every way", async () => {
  writeTlsFolder(folder, authority, authority.issue(["host1"], LONG));
  expect(await found()).toEqual(["ok: F: server and client, accepted and valid for long"]);
});

test("one side alone is enough for a host that only sends, or only takes in", async () => {
  writeTlsFolder(folder, authority, authority.issue(["host1"], LONG));
  for (const file of ["server-cert.pem", "server-key.pem"]) rmSync(join(folder, file));
  expect(await found()).toEqual(["ok: F: client, accepted and valid for long"]);
});

test("a folder without certificates, and one without an authority", async () => {
  expect(await found()).toEqual(["problem: F holds neither server-cert.pem nor client-cert.pem"]);
  writeTlsFolder(folder, authority, authority.issue(["host1"], LONG));
  rmSync(join(folder, "ca-cert.pem"));
  expect(await found()).toEqual(Array(2).fill("problem: F/ca-cert.pem is missing"));
});

test("what expires soon, and what has expired", async () => {
  const soon = authority.issue(["host1"], { notAfter: daysFromNow(10.5) });
  writeTlsFolder(folder, authority, soon, authority.issue(["host1"], { ...LONG, notBefore: daysFromNow(1) }));
  expect(await found()).toEqual([
    expect.stringMatching(/^problem: The certificate F\/client-cert.pem is not valid before/),
    "warning: F/server-cert.pem expires in 10 days",
  ]);
  writeTlsFolder(
    folder,
    authority,
    authority.issue(["host1"], { notAfter: daysFromNow(-1), notBefore: daysFromNow(-9) }),
  );
  expect(await found()).toEqual([
    expect.stringMatching(/^problem: The certificate F\/server-cert.pem has expired/),
    expect.stringMatching(/^problem: The certificate F\/client-cert.pem has expired/),
  ]);
});

test("a server's certificate for another name than sources would use", async () => {
  writeTlsFolder(folder, authority, authority.issue(["host2.example.com"], LONG));
  const [finding, ...others] = await found();
  expect(others).toEqual([]);
  expect(finding).toContain("warning: the server's certificate is for DNS:host2.example.com");
  expect(finding).toContain("this host is called host1");
  expect(await found(folder, ["other", "host2.example.com"])).toEqual([expect.stringMatching(/^ok: /)]);
});

test("files that others may read or write", async () => {
  writeTlsFolder(folder, authority, authority.issue(["host1"], LONG));
  chmodSync(join(folder, "ca-cert.pem"), 0o664);
  chmodSync(join(folder, "client-key.pem"), 0o604);
  expect(await found()).toEqual([
    expect.stringMatching(/^problem: Everybody may read the private key F\/client-key.pem/),
    "warning: F/ca-cert.pem can be written by others (mode 664)",
  ]);
});

test("certificates of another authority than the one that is trusted", async () => {
  const other = new Authority("Another");
  writeTlsFolder(folder, authority, other.issue(["host1"], LONG));
  const findings = await found();
  expect(findings.length).toBeGreaterThan(0);
  expect(findings.every((text) => text.startsWith("problem: "))).toBe(true);
  expect(findings.join()).toContain("its authority is not one that is trusted here");
  for (const file of ["client-cert.pem", "client-key.pem"]) rmSync(join(folder, file));
  expect(await found()).toEqual(["problem: server-cert.pem was not issued by the authority of ca-cert.pem"]);
});

test("a key that belongs to another certificate, and rubbish", async () => {
  const [one, another] = [authority.issue(["host1"], LONG), authority.issue(["host1"], LONG)];
  writeTlsFolder(folder, authority, { key: another.key, certificate: one.certificate }, one);
  expect(await found()).toEqual([
    "problem: The key F/server-key.pem is not that of the certificate F/server-cert.pem",
  ]);
  writeFileSync(join(folder, "ca-cert.pem"), "rubbish");
  expect(await found()).toEqual(Array(2).fill("problem: There is no certificate (PEM) in F/ca-cert.pem"));
});

test("paired hosts are told of; that there are none only where keys were asked for", () => {
  const path = join(folder, "keys");
  expect(checkPairedKeys(path)).toEqual([expect.objectContaining({ level: "problem" })]);
  const keys = PairedKeys.create(path);
  keys.pin("host2", keys.own().certificate);
  expect(checkPairedKeys(path)).toEqual([
    { check: "pairing", level: "ok", says: "paired with host2", values: { hosts: ["host2"] } },
  ]);
  chmodSync(path, 0o755);
  expect(checkPairedKeys(path)).toEqual([expect.objectContaining({ level: "problem" })]);
});
