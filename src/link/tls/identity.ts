// Who this host is towards others, and whom it trusts: a key, its certificate, and the certificates that vouch for
// peers. From a folder laid out as QEMU, libvirt and KubeVirt lay it out (QEMU: docs/system/tls.rst). What is wrong with
// the files is found here, before anything is touched, and said by name. Knows no connection.

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { TlsError } from "../../base/errors.ts";

export interface TlsIdentity {
  /** PEM. */
  readonly key: string;
  /** PEM: this host's, and those between it and the authority's, if there are any. */
  readonly certificate: string;
  /** PEM: whoever is vouched for by one of these is trusted. */
  readonly trusted: readonly string[];
  /** PEM: certificates that have been called back. */
  readonly revoked?: string;
  /**
   * Fingerprints of peers, with the names that they have here, where `trusted` are their own certificates: nobody else
   * is trusted then, and what names a certificate claims does not matter.
   */
  readonly pinned?: ReadonlyMap<string, string>;
}

export type TlsSide = "server" | "client";

const AUTHORITY_FILE = "ca-cert.pem";
const REVOKED_FILE = "ca-crl.pem";
/** Read and written by anybody: a key is for its owner, and perhaps a group (QEMU's, in libvirt's layout). */
const OTHERS = 0o007;

/** "server" is the side that listens. @throws TlsError TLS_FILES_INVALID */
export function readTlsFolder(folder: string, side: TlsSide, now = new Date()): TlsIdentity {
  const authorities = join(folder, AUTHORITY_FILE);
  const trusted = readPem(authorities);
  parseCertificate(trusted, authorities);
  const own = readOwn(join(folder, `${side}-key.pem`), join(folder, `${side}-cert.pem`), now);
  const revoked = readIfThere(join(folder, REVOKED_FILE));
  if (revoked !== undefined) checkRevoked(revoked, join(folder, REVOKED_FILE));
  return { ...own, trusted: [trusted], ...(revoked === undefined ? {} : { revoked }) };
}

/** A key and its certificate, which is valid now. @throws TlsError TLS_FILES_INVALID */
export function readOwn(
  keyFile: string,
  certificateFile: string,
  now: Date,
): Pick<TlsIdentity, "key" | "certificate"> {
  const certificate = readPem(certificateFile);
  const parsed = parseCertificate(certificate, certificateFile);
  const key = readPem(keyFile);
  if ((statSync(keyFile).mode & OTHERS) !== 0) {
    throw invalid(`Everybody may read the private key ${keyFile}: chmod o= ${keyFile}`);
  }
  if (!parsed.checkPrivateKey(parseKey(key, keyFile))) {
    throw invalid(`The key ${keyFile} is not that of the certificate ${certificateFile}`);
  }
  if (now < new Date(parsed.validFrom)) {
    throw invalid(`The certificate ${certificateFile} is not valid before ${parsed.validFrom}`);
  }
  if (now > new Date(parsed.validTo)) {
    throw invalid(`The certificate ${certificateFile} has expired on ${parsed.validTo}`);
  }
  return { key, certificate };
}

/** @throws TlsError TLS_FILES_INVALID */
export function parseCertificate(pem: string, file: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    throw invalid(`There is no certificate (PEM) in ${file}`);
  }
}

function parseKey(pem: string, file: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    // Not the cause's words: they are about what is in the file.
    const why = pem.includes("ENCRYPTED") ? "is encrypted" : "cannot be read";
    throw invalid(`The private key in ${file} ${why}: a key in PEM without a passphrase is needed`);
  }
}

/** OpenSSL would read it when the first peer comes. */
function checkRevoked(pem: string, file: string): void {
  try {
    createSecureContext({ crl: pem });
  } catch {
    throw invalid(`There is no list of revoked certificates (PEM) in ${file}`);
  }
}

function readIfThere(file: string): string | undefined {
  return statSync(file, { throwIfNoEntry: false }) === undefined ? undefined : readPem(file);
}

/** @throws TlsError TLS_FILES_INVALID */
function readPem(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    const why =
      code === "ENOENT"
        ? "is missing"
        : code === "EACCES"
          ? "may not be read by this user"
          : `cannot be read (${code})`;
    throw invalid(`${file} ${why}`, thrown);
  }
}

function invalid(message: string, cause?: unknown): TlsError {
  return new TlsError("TLS_FILES_INVALID", message, { cause });
}
