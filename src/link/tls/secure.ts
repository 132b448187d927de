// Makes a TLS 1.3 connection of a connected socket, with both sides proving who they are. What comes of it is a socket
// again, and who is at the other end. Knows nothing of what is said over it, nor whether this peer may say it.

import { createHash, type X509Certificate } from "node:crypto";
import { isIP, type Socket } from "node:net";
import tls from "node:tls";
import { TlsError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type { TlsIdentity } from "./identity.ts";

export interface Peer {
  /** SHA-256 of its certificate, in lowercase hex. */
  readonly fingerprint: string;
  /** Common name of its certificate, or the name under which it was paired: for people only. */
  readonly title: string;
  /** Whether its certificate holds for this host name or address. */
  isNamed(name: string): boolean;
}

export interface SecureConnection {
  readonly socket: tls.TLSSocket;
  readonly peer: Peer;
  /** 16 bytes in hex that both ends of this connection know, and nobody else (RFC 5705, RFC 8446 7.5). */
  readonly binding: string;
}

const BINDING_LABEL = "EXPORTER-deltavee-session";
const BINDING_BYTES = 16;
const TITLE_CHARS_MAX = 128;
/** Fastest first, on machines with instructions for AES; where there are none OpenSSL's client prefers ChaCha20. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/** What OpenSSL says is wrong with a certificate, in words of people. */
const REJECTIONS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "it has expired",
  CERT_NOT_YET_VALID: "it is not valid yet",
  CERT_REVOKED: "it has been revoked",
  CRL_HAS_EXPIRED: "the list of revoked certificates (ca-crl.pem) has expired",
  INVALID_PURPOSE: "it is not meant for this side of a connection (extended key usage)",
  DEPTH_ZERO_SELF_SIGNED_CERT: "it vouches for itself, and is not one that is trusted here",
  SELF_SIGNED_CERT_IN_CHAIN: "its authority is not one that is trusted here",
  UNABLE_TO_GET_ISSUER_CERT: "its authority is not one that is trusted here",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its authority is not one that is trusted here",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its authority is not one that is trusted here",
  CERT_SIGNATURE_FAILURE: "it was not signed by the authority that it names",
};

const NOT_PAIRED = "it is not that of a host that this one has been paired with";

/** OpenSSL's ways to say that these are no records of TLS. */
const NOT_TLS: ReadonlySet<string> = new Set([
  "ERR_SSL_WRONG_VERSION_NUMBER",
  "ERR_SSL_PACKET_LENGTH_TOO_LONG",
  "ERR_SSL_HTTP_REQUEST",
]);

/** What both sides hold to. */
function contextOptions({ key, certificate, trusted, revoked }: TlsIdentity): tls.SecureContextOptions {
  return {
    key,
    cert: certificate,
    ca: [...trusted],
    ...(revoked === undefined ? {} : { crl: revoked }),
    minVersion: "TLSv1.3",
    ciphers: CIPHERS,
  };
}

/**
 * As the side that has connected. The peer's certificate must be for `host`; where certificates are pinned it must be
 * one of them, whatever its name. @throws TlsError TLS_PEER_REJECTED, TLS_FAILED; the socket is destroyed then
 */
export function secureClient(
  socket: Socket,
  identity: TlsIdentity,
  host: string,
  timeoutMs: number,
): Promise<SecureConnection> {
  return new Promise((resolve, reject) => {
    const secured = tls.connect({
      socket,
      ...contextOptions(identity),
      // An address is no server name (RFC 6066); node:tls checks it against the certificate all the same.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      host,
      // Pinned: whose it is is checked below.
      ...(identity.pinned === undefined ? {} : { checkServerIdentity: () => undefined }),
    });
    const fail = (error: TlsError): void => {
      clearTimeout(timer);
      secured.destroy();
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () => fail(new TlsError("TLS_FAILED", `TLS with ${host} was not there within ${formatMs(timeoutMs)}`)),
      timeoutMs,
    );
    const onClose = () =>
      fail(new TlsError("TLS_FAILED", `The peer at ${host} hung up during the TLS handshake`));
    const onError = (error: Error) => fail(clientError(error, host));
    secured.on("error", onError);
    secured.once("close", onClose);
    secured.once("secureConnect", () => {
      clearTimeout(timer);
      secured.off("close", onClose);
      secured.off("error", onError);
      // Nothing of it is read before there is a channel.
      secured.pause();
      const connection = asConnection(secured, identity);
      if (connection !== undefined && !isTrusted(connection.peer, identity)) {
        const text = `The certificate of the peer at ${host} is not accepted: ${NOT_PAIRED}`;
        fail(new TlsError("TLS_PEER_REJECTED", text));
      } else if (connection === undefined)
        fail(new TlsError("TLS_FAILED", `The peer at ${host} is gone already`));
      else resolve(connection);
    });
  });
}

/** A handshake that was made with a peer that is not accepted: it can be told so. */
export interface RejectedConnection {
  readonly socket: tls.TLSSocket;
  /** What is wrong with its certificate. */
  readonly why: string;
}

/**
 * As the side that listens. Each connection has a context of its own, so that no session is ever resumed: whoever comes
 * proves anew who it is. @throws TlsError TLS_FAILED; the socket is destroyed then
 */
export function secureServer(
  socket: Socket,
  identity: TlsIdentity,
  timeoutMs: number,
): Promise<SecureConnection | RejectedConnection> {
  return new Promise((resolve, reject) => {
    const server = tls.createServer({
      ...contextOptions(identity),
      requestCert: true,
      // Judged below: whoever is refused is to hear why.
      rejectUnauthorized: false,
      handshakeTimeout: timeoutMs,
    });
    const fail = (why: string, cause?: Error): void => {
      socket.destroy();
      reject(new TlsError("TLS_FAILED", `TLS handshake failed${why}`, { cause }));
    };
    server.once("tlsClientError", (error) => fail(failure(error), error));
    server.once("secureConnection", (secured) => {
      // Nothing of it is read before there is a channel.
      secured.pause();
      const why = rejection(secured);
      if (why !== undefined) {
        resolve({ socket: secured, why });
        return;
      }
      const connection = asConnection(secured, identity);
      if (connection === undefined) fail(": the peer is gone already");
      else if (!isTrusted(connection.peer, identity)) resolve({ socket: secured, why: NOT_PAIRED });
      else resolve(connection);
    });
    server.emit("connection", socket);
  });
}

/** Undefined: the peer is accepted. */
function rejection(secured: tls.TLSSocket): string | undefined {
  if (secured.getPeerX509Certificate() === undefined) return "it has presented none";
  return secured.authorized ? undefined : inWords(String(secured.authorizationError));
}

/** Undefined when there is no connection any more. */
function asConnection(secured: tls.TLSSocket, identity: TlsIdentity): SecureConnection | undefined {
  const certificate = secured.getPeerX509Certificate();
  if (certificate === undefined || secured.destroyed) return undefined;
  const binding = secured.exportKeyingMaterial(BINDING_BYTES, BINDING_LABEL, Buffer.alloc(0));
  return { socket: secured, peer: peerOf(certificate, identity), binding: binding.toString("hex") };
}

function peerOf(certificate: X509Certificate, { pinned }: TlsIdentity): Peer {
  const fingerprint = fingerprintOf(certificate);
  if (pinned !== undefined) {
    const name = pinned.get(fingerprint);
    return { fingerprint, title: name ?? "nobody", isNamed: (other) => other === name };
  }
  const commonName = /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? "nameless";
  return {
    fingerprint,
    title: commonName.replace(/[\p{Cc}\p{Cs}]+/gu, " ").slice(0, TITLE_CHARS_MAX),
    // Names are compared by OpenSSL: certificates have been made that read as a list of names and are one.
    isNamed: (name) =>
      (isIP(name) === 0 ? certificate.checkHost(name, { wildcards: false }) : certificate.checkIP(name)) !==
      undefined,
  };
}

/** OpenSSL has found it to be vouched for; by whoever has been paired with, too, who vouches for itself alone. */
function isTrusted({ fingerprint }: Peer, { pinned }: TlsIdentity): boolean {
  return pinned === undefined || pinned.has(fingerprint);
}

export function fingerprintOf(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.raw).digest("hex");
}

function inWords(code: string): string {
  return REJECTIONS[code] ?? `OpenSSL says ${code}`;
}

function clientError(error: Error, host: string): TlsError {
  const code = "code" in error ? String(error.code) : "";
  const certificate = `The certificate of the peer at ${host} is not accepted`;
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return new TlsError("TLS_PEER_REJECTED", `${certificate}: it is for another name`, { cause: error });
  }
  if (Object.hasOwn(REJECTIONS, code)) {
    return new TlsError("TLS_PEER_REJECTED", `${certificate}: ${inWords(code)}`);
  }
  // OpenSSL's own words for that are about a version number.
  const details = NOT_TLS.has(code) ? {} : { cause: error };
  return new TlsError("TLS_FAILED", `TLS with the peer at ${host} failed${failure(error)}`, details);
}

function failure(error: Error): string {
  const code = "code" in error ? String(error.code) : "";
  return NOT_TLS.has(code) ? ": what the peer says is not TLS" : "";
}
