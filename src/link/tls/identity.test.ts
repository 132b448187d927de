// Files of keys and certificates that cannot be used are found before anything is touched, and named.

import { chmodSync, mkdirSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Authority, daysFromNow, newKey, writeTlsFolder } from "../../../test/support/certificates.ts";
import { TlsError } from "../../base/errors.ts";
import { readTlsFolder } from "./identity.ts";

const authority = new Authority();
const good = authority.issue(["host"]);
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-tls-"));
  writeTlsFolder(folder, authority, good);
});
afterEach(() => rmSync(folder, { recursive: true }));

function refusal(side: "server" | "client" = "server"): string {
  try {
    readTlsFolder(folder, side);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(TlsError);
    expect((thrown as TlsError).code).toBe("TLS_FILES_INVALID");
    return (thrown as TlsError).message;
  }
  return "taken";
}

test("a folder as QEMU lays it out is read, for each side", () => {
  const client = authority.issue(["client"]);
  writeTlsFolder(folder, authority, good, client);
  expect(readTlsFolder(folder, "server")).toMatchObject({ certificate: good.certificate });
  expect(readTlsFolder(folder, "client")).toMatchObject({ certificate: client.certificate });
  expect(readTlsFolder(folder, "client").trusted).toEqual([authority.certificate]);
  expect(readTlsFolder(folder, "client").revoked).toBeUndefined();
});

test("a list of revoked certificates is read where there is one, and refused where it is none", () => {
  const list = authority.revoke([good]);
  writeFileSync(join(folder, "ca-crl.pem"), list);
  expect(readTlsFolder(folder, "server").revoked).toBe(list);
  writeFileSync(join(folder, "ca-crl.pem"), "nothing");
  expect(refusal()).toMatch(/There is no list of revoked certificates \(PEM\) in .*ca-crl.pem/);
});

test("a folder where a file should be is named", () => {
  unlinkSync(join(folder, "server-key.pem"));
  mkdirSync(join(folder, "server-key.pem"));
  expect(refusal()).toMatch(/server-key.pem cannot be read \(EISDIR\)/);
});

test("each file that is missing is named", () => {
  for (const file of ["ca-cert.pem", "server-cert.pem", "server-key.pem"]) {
    writeTlsFolder(folder, authority, good);
    unlinkSync(join(folder, file));
    expect(refusal()).toBe(`${join(folder, file)} is missing`);
  }
  writeTlsFolder(folder, authority, good);
  unlinkSync(join(folder, "server-key.pem"));
  expect(refusal("client")).toBe("taken");
});

// Root may read everything.
test.skipIf(process.getuid?.() === 0)("a file that this user may not read is named", () => {
  chmodSync(join(folder, "server-key.pem"), 0);
  expect(refusal()).toMatch(/server-key.pem may not be read by this user/);
});

test("a key that everybody may read is refused; one of a group is not", () => {
  chmodSync(join(folder, "server-key.pem"), 0o644);
  expect(refusal()).toMatch(/Everybody may read .*server-key.pem: chmod o= /);
  chmodSync(join(folder, "server-key.pem"), 0o640);
  expect(refusal()).toBe("taken");
});

test("what is no certificate or no key is refused, without a word of what is in it", () => {
  const secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ";
  for (const file of ["ca-cert.pem", "server-cert.pem", "server-key.pem"]) {
    writeTlsFolder(folder, authority, good);
    const kind = file.includes("key") ? "PRIVATE KEY" : "CERTIFICATE";
    writeFileSync(join(folder, file), `-----BEGIN ${kind}-----\n${secret}\n-----END ${kind}-----\n`);
    expect(refusal()).toContain(file);
    expect(refusal()).not.toContain(secret);
  }
});

test("a key with a passphrase is refused", () => {
  const pem = good.key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" });
  writeFileSync(join(folder, "server-key.pem"), pem);
  expect(refusal()).toMatch(/server-key.pem is encrypted/);
});

test("a key of another certificate is refused", () => {
  writeTlsFolder(folder, authority, { ...good, key: newKey() });
  expect(refusal()).toMatch(/server-key.pem is not that of the certificate .*server-cert.pem/);
});

test("a certificate of our own that has expired, or is not valid yet, is refused with the date", () => {
  writeTlsFolder(folder, authority, authority.issue(["host"], { notAfter: daysFromNow(-0.5) }));
  expect(refusal()).toMatch(/server-cert.pem has expired on .* GMT/);
  writeTlsFolder(folder, authority, authority.issue(["host"], { notBefore: daysFromNow(0.5) }));
  expect(refusal()).toMatch(/server-cert.pem is not valid before .* GMT/);
});
