// The sockets of a pairing: TLS with certificates that nobody vouches for, over which the exchange decides. One side
// listens, and takes one try: whoever gives a wrong code has used it up. Bounded in time, bytes and connections.

import { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import tls from "node:tls";
import { LinkError, ProtocolError, TlsError, toError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type { OwnKeys } from "../../library/paired-keys.ts";
import { type Address, connect, type Listener, listen } from "../../link/address.ts";
import { fingerprintOf } from "../../link/tls/secure.ts";
import {
  BINDING_BYTES,
  checkForm,
  MESSAGE_BYTES_MAX,
  messageBytes,
  PAIRING_LABEL,
  PairingExchange,
  type PairingSide,
} from "./exchange.ts";

/** Strangers at a time, each for no longer than MEETING_MS_MAX. */
const STRANGERS_MAX = 16;
const MEETING_MS_MAX = 10_000;

export interface Met {
  /** How the other side calls itself. */
  name: string;
  /** PEM: its certificate, which is its. */
  certificate: string;
  fingerprint: string;
}

export interface MeetingOptions {
  keys: OwnKeys;
  code: string;
  /** How this side calls itself. */
  name: string;
}

/** @throws LinkError, TlsError, ProtocolError PROTOCOL_REFUSED: not the other side that was meant */
export async function meetAt(address: Address, { keys, code, name }: MeetingOptions): Promise<Met> {
  const socket = await connect(address, MEETING_MS_MAX);
  const secured = tls.connect({ socket, ...tlsOptions(keys), rejectUnauthorized: false });
  return withLimit(secured, async () => {
    await new Promise<void>((resolve, reject) => {
      secured.once("secureConnect", resolve);
      secured.once("error", (cause) => reject(failed(cause)));
      secured.once("close", () => reject(failed(undefined)));
    });
    const { exchange, met } = await exchangeOver(secured, "connecting", keys, code);
    secured.write(exchange.message("connecting", name));
    const answer = await readMessage(secured);
    const theirs = exchange.read("listening", answer);
    secured.end();
    return { ...met, name: theirs };
  });
}

export interface Meeting {
  readonly address: Address;
  /** @throws ProtocolError PROTOCOL_REFUSED when somebody did not know the code: it is used up then */
  readonly met: Promise<Met>;
  close(): void;
}

/** Waits for the other side. `turnedAway`: strangers who did not get as far as a code. */
export async function waitAt(
  address: Address,
  { keys, code, name }: MeetingOptions,
  turnedAway: (text: string) => void,
): Promise<Meeting> {
  const server = tls.createServer({
    ...tlsOptions(keys),
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: MEETING_MS_MAX,
  });
  let [settle, refuse] = [(_met: Met) => {}, (_error: Error) => {}];
  const met = new Promise<Met>((resolve, reject) => {
    [settle, refuse] = [resolve, reject];
  });
  met.catch(() => {});
  server.on("tlsClientError", (error) => turnedAway(error.message));
  let isTried = false;
  server.on("secureConnection", (secured) => {
    withLimit(secured, async () => {
      // First: a stranger who says nothing of use is not worth the stretching of the code.
      const message = await readMessage(secured);
      checkForm(message);
      certificateOf(secured);
      // While it is stretched for one, others could have their guess, too.
      if (isTried)
        throw new LinkError("LINK_CLOSED", "The one try that a code is good for was another one's");
      isTried = true;
      const { exchange, met: other } = await exchangeOver(secured, "listening", keys, code);
      const theirs = exchange.read("connecting", message);
      secured.end(exchange.message("listening", name));
      return { ...other, name: theirs };
    }).then(settle, (thrown: unknown) => {
      const error = toError(thrown);
      // A message, and not by the code: that was the one try.
      if (error instanceof ProtocolError && error.code === "PROTOCOL_REFUSED") refuse(error);
      else turnedAway(error.message);
    });
  });
  const handlers = {
    onConnection: (socket: Socket) => {
      socket.on("error", () => {});
      server.emit("connection", socket);
    },
    onError: (error: Error) => turnedAway(error.message),
  };
  const options = { pauseOnConnect: true, connectionsMax: STRANGERS_MAX };
  const listener: Listener = await listen(address, handlers, options);
  return { address: listener.address, met, close: () => listener.close() };
}

function tlsOptions({ key, certificate }: OwnKeys) {
  return { key, cert: certificate, minVersion: "TLSv1.3" as const };
}

/** @throws TlsError TLS_PEER_REJECTED */
function certificateOf(secured: tls.TLSSocket): X509Certificate {
  const certificate = secured.getPeerX509Certificate();
  if (certificate === undefined) throw new TlsError("TLS_PEER_REJECTED", "The other side has no certificate");
  return certificate;
}

/** What the two sides of this connection have in common, and whom it has at its other end. */
async function exchangeOver(
  secured: tls.TLSSocket,
  side: PairingSide,
  keys: OwnKeys,
  code: string,
): Promise<{ exchange: PairingExchange; met: Omit<Met, "name"> }> {
  const certificate = certificateOf(secured);
  const fingerprint = fingerprintOf(certificate);
  const own = fingerprintOf(new X509Certificate(keys.certificate));
  const exchange = await PairingExchange.over({
    code,
    binding: secured.exportKeyingMaterial(BINDING_BYTES, PAIRING_LABEL, Buffer.alloc(0)),
    fingerprints:
      side === "listening"
        ? { listening: own, connecting: fingerprint }
        : { listening: fingerprint, connecting: own },
  });
  return { exchange, met: { certificate: certificate.toString(), fingerprint } };
}

/** @throws ProtocolError, LinkError */
function readMessage(secured: tls.TLSSocket): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let read = Buffer.alloc(0);
    secured.on("data", (bytes: Buffer) => {
      read = Buffer.concat([read, bytes]);
      try {
        const length = messageBytes(read);
        if (length !== undefined && read.length >= length) resolve(read.subarray(0, length));
        else if (read.length > MESSAGE_BYTES_MAX) reject(failed(undefined));
      } catch (thrown) {
        reject(toError(thrown));
      }
    });
    secured.once("end", () => reject(failed(undefined)));
    secured.once("close", () => reject(failed(undefined)));
  });
}

/** The connection ends with what is done over it, and does not last longer than it may. */
async function withLimit<Result>(secured: tls.TLSSocket, work: () => Promise<Result>): Promise<Result> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    secured.destroy();
  }, MEETING_MS_MAX);
  secured.on("error", () => {});
  try {
    const result = await work();
    // What was written last is to arrive; the other side closes, too.
    secured.resume();
    return result;
  } catch (thrown) {
    secured.destroy();
    if (isLate)
      throw new LinkError("LINK_TIMEOUT", `The other side was not done within ${formatMs(MEETING_MS_MAX)}`);
    throw thrown;
  } finally {
    clearTimeout(timer);
  }
}

function failed(cause: Error | undefined): LinkError {
  return new LinkError("LINK_CLOSED", "The other side hung up before the hosts were paired", { cause });
}
