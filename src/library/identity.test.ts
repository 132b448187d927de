// When TLS is used, when it must be, and that plain text has to be asked for by name.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Authority, writeTlsFolder } from "../../test/support/certificates.ts";
import { parseAddress } from "../link/address.ts";
import { chooseIdentity, isLoopback } from "./identity.ts";
import { PairedKeys } from "./paired-keys.ts";

const LOCAL = ["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "localhost:1", "deltavee://127.0.0.1:1", "unix:/x"];
const OTHERS = ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "host2:1", "deltavee://localhost.example:1", "0:1"];
const authority = new Authority();
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "deltavee-security-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("loopback is what never leaves the host", () => {
  expect(LOCAL.filter((text) => !isLoopback(parseAddress(text)))).toEqual([]);
  expect(OTHERS.filter((text) => isLoopback(parseAddress(text)))).toEqual([]);
});

test("plain text on loopback; anywhere else TLS is needed, or an explicit word", () => {
  const keysDir = join(folder, "none");
  for (const text of LOCAL) expect(chooseIdentity(parseAddress(text), "server", {})).toBeUndefined();
  for (const text of OTHERS) {
    for (const side of ["server", "client"] as const) {
      expect(() => chooseIdentity(parseAddress(text), side, { keysDir })).toThrow(/it needs TLS/);
      const options = { keysDir, insecurePlaintext: true } as const;
      expect(chooseIdentity(parseAddress(text), side, options)).toBeUndefined();
    }
  }
});

test("certificates that are given are used, on loopback too", () => {
  const tlsDir = writeTlsFolder(join(folder, "tls"), authority, authority.issue(["host"]));
  for (const text of [...LOCAL, ...OTHERS]) {
    expect(chooseIdentity(parseAddress(text), "server", { tlsDir })).toMatchObject({
      trusted: [authority.certificate],
    });
  }
});

test("of paired hosts the one that is connected to is trusted, and all of them may connect", () => {
  const keysDir = join(folder, "keys");
  const keys = PairedKeys.create(keysDir);
  for (const name of ["host2", "192.0.2.9"]) {
    const other = PairedKeys.create(join(folder, name));
    keys.pin(name, other.own().certificate);
  }
  const to = (text: string) => chooseIdentity(parseAddress(text), "client", { keysDir });
  expect([...to("deltavee://host2:1")!.pinned!.values()]).toEqual(["host2"]);
  expect([...to("deltavee://192.0.2.9:1")!.pinned!.values()]).toEqual(["192.0.2.9"]);
  expect(() => to("deltavee://host3:1")).toThrow(/has not been paired with "host3"/);
  const listening = chooseIdentity(parseAddress("0.0.0.0:1"), "server", { keysDir });
  expect([...listening!.pinned!.values()]).toEqual(["192.0.2.9", "host2"]);
});
