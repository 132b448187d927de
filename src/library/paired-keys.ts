// Keys of this host and certificates of those that it has been paired with: small files in a folder that nobody else
// can read. One key for all peers; a peer is known by its certificate alone, under the name that the operator gave it.

import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { homedir, hostname } from "node:os";
import { join } from "node:path";
import { TlsError, UsageError } from "../base/errors.ts";
import * as v from "../base/schema.ts";
import { writeCertificate } from "../link/tls/certificate-writer.ts";
import type { TlsIdentity } from "../link/tls/identity.ts";
import { fingerprintOf } from "../link/tls/secure.ts";
import { StateFolder } from "../state/state-folder.ts";

const OWN = "identity";
const PEER_PREFIX = "peer-";
const DAY_MS = 24 * 60 * 60 * 1000;
/** Clocks of two hosts are not the same. */
const VALID_BEFORE_MS = DAY_MS;
/** Nobody renews a pinned certificate; it is replaced by pairing again. */
const VALID_MS = 20 * 365 * DAY_MS;
/** A file may be called so much and no more: `.peer-NAME.json.tmp` while it is written (state-folder.ts). */
const PEER_NAME_CHARS_MAX = 255 - ".peer-.json.tmp".length;
const PEER_NAME: RegExp = /^[A-Za-z0-9][A-Za-z0-9.:_-]*$/;

/** As hosts are called, which are also names of files. */
export function isPeerName(name: string): boolean {
  return PEER_NAME.test(name) && name.length <= PEER_NAME_CHARS_MAX;
}

/** @throws UsageError for what no host can be known as; it says why */
export function assertPeerName(name: string): void {
  if (isPeerName(name)) return;
  const isLong = name.length > PEER_NAME_CHARS_MAX;
  const why = isLong
    ? `it is longer than ${PEER_NAME_CHARS_MAX} characters`
    : "letters, digits and .:_- make one";
  throw new UsageError(`No host can be known here as "${name}": ${why}. Give it another name with --as`);
}

const certificateSchema = v.pipe(
  v.string(),
  v.check((pem) => {
    try {
      return new X509Certificate(pem) !== undefined;
    } catch {
      return false;
    }
  }),
);
const ownSchema = v.object({ key: v.string(), certificate: certificateSchema });
const peerSchema = v.object({ certificate: certificateSchema });

export type OwnKeys = v.InferOutput<typeof ownSchema>;

export class PairedKeys {
  readonly #folder: StateFolder;

  /** Undefined: this host has never been paired. @throws UsageError for a folder that others have access to */
  static find(path = defaultKeysFolder()): PairedKeys | undefined {
    const folder = StateFolder.find(path);
    return folder === undefined ? undefined : new PairedKeys(folder);
  }

  /** @throws UsageError */
  static create(path = defaultKeysFolder()): PairedKeys {
    return new PairedKeys(StateFolder.create(path));
  }

  private constructor(folder: StateFolder) {
    this.#folder = folder;
  }

  get path(): string {
    return this.#folder.path;
  }

  /** Names of the hosts that it has been paired with. */
  peers(): string[] {
    return this.#folder
      .names()
      .filter((name) => name.startsWith(PEER_PREFIX))
      .map((name) => name.slice(PEER_PREFIX.length));
  }

  /** This host's own, made when they are first asked for. @throws TlsError when they are there and no good */
  own(): OwnKeys {
    if (this.#folder.names().includes(OWN)) return this.#read(OWN, ownSchema);
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const subject = hostname();
    const nowMs = Date.now();
    const certificate = writeCertificate({
      subject,
      names: [],
      key: privateKey,
      notBefore: new Date(nowMs - VALID_BEFORE_MS),
      notAfter: new Date(nowMs + VALID_MS),
    });
    const own = { key: privateKey.export({ type: "pkcs8", format: "pem" }) as string, certificate };
    this.#folder.write(OWN, JSON.stringify(own), { durable: true });
    return own;
  }

  /** From now on `certificate` is that of `name`, and no earlier one is. */
  pin(name: string, certificate: string): void {
    assertPeerName(name);
    this.#folder.write(PEER_PREFIX + name, JSON.stringify({ certificate }), { durable: true });
  }

  /** Its certificate, PEM. Undefined: there is no such peer. @throws TlsError */
  certificateOf(name: string): string | undefined {
    return this.peers().includes(name) ? this.#read(PEER_PREFIX + name, peerSchema).certificate : undefined;
  }

  /** Harmless for one that is not there. */
  forget(name: string): void {
    this.#folder.remove(PEER_PREFIX + name);
  }

  /** Towards one peer, or all of them. Undefined: there is none. @throws TlsError */
  identity(peer?: string): TlsIdentity | undefined {
    const names = this.peers().filter((name) => peer === undefined || name === peer);
    if (names.length === 0) return undefined;
    const trusted = names.map((name) => this.#read(PEER_PREFIX + name, peerSchema).certificate);
    const pinned = new Map(
      trusted.map((certificate, i) => [fingerprintOf(new X509Certificate(certificate)), names[i]!]),
    );
    return { ...this.own(), trusted, pinned };
  }

  #read<Content>(name: string, schema: v.GenericSchema<unknown, Content>): Content {
    try {
      return v.parsed(schema, JSON.parse(this.#folder.read(name)));
    } catch {
      // Not the cause's words: they may quote what is in the file.
      const file = join(this.#folder.path, `${name}.json`);
      throw new TlsError("TLS_FILES_INVALID", `${file} cannot be read: remove it, and pair the hosts again`);
    }
  }
}

/** What must outlive a restart of the machine. */
function defaultKeysFolder(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.()): string {
  if (uid === 0) return "/var/lib/deltavee/keys";
  const base = env.XDG_STATE_HOME?.startsWith("/") ? env.XDG_STATE_HOME : join(homedir(), ".local/state");
  return join(base, "deltavee", "keys");
}
