// The link to a peer: whether it answers, who it is, and what the link carries, if "deltavee doctor --listen" waits there;
// a "deltavee receive" is not told anything, and goes on waiting for its source. And that counterpart itself.

import type { Socket } from "node:net";
import { toError, UsageError } from "../../base/errors.ts";
import { formatBytesPerSecond, formatMs } from "../../base/units.ts";
import { chooseIdentity, type SecurityOptions } from "../../library/identity.ts";
import {
  type Address,
  connect,
  formatAddress,
  type Listener,
  listen,
  parseAddress,
} from "../../link/address.ts";
import { secureClient, secureServer } from "../../link/tls/secure.ts";
import { FrameReader } from "../../wire/frame-reader.ts";
import type { Finding } from "./finding.ts";
import type { Clocks } from "./host.ts";
import {
  answer,
  CONNECTION_MS_MAX,
  GREETING,
  type Measurement,
  MeasuringSocket,
  measure,
} from "./measuring.ts";

const CONNECT_TIMEOUT_MS = 10_000;
/** Strangers at a time who have not proved who they are. */
const STRANGERS_MAX = 16;
/** A listener that measures speaks first. Round trips of seconds are not what migrations are made over. */
const GREETING_TIMEOUT_MS = 3000;
/** Certificates and records of both sides are judged by wall clocks. */
const CLOCKS_APART_MS = 2000;
const LINK_SLOW_BYTES_PER_SECOND = 125_000;

export interface PeerOptions extends SecurityOptions {
  readonly tlsHostname?: string | undefined;
}

export type PeerAddress = Extract<Address, { kind: "deltavee" }>;

/** @throws UsageError for an address that is not to be connected to */
export function parsePeer(text: string): PeerAddress {
  const address = parseAddress(text);
  if (address.kind === "deltavee") return address;
  throw new UsageError(
    `Not a peer to be looked at: "${text}" (deltavee://HOST:PORT). A QEMU that waits for its guest takes whoever ` +
      "connects for the source",
  );
}

export async function checkPeer(
  address: PeerAddress,
  options: PeerOptions,
  clocks: Clocks,
): Promise<Finding[]> {
  const name = formatAddress(address);
  let socket: Socket | undefined;
  try {
    const identity = chooseIdentity(address, "client", options);
    const startMs = clocks.monotonicMs();
    socket = await connect(address, CONNECT_TIMEOUT_MS);
    const connectMs = clocks.monotonicMs() - startMs;
    let who = "in plain text";
    if (identity !== undefined) {
      const host = options.tlsHostname ?? address.host;
      const secured = await secureClient(socket, identity, host, CONNECT_TIMEOUT_MS);
      socket = secured.socket;
      who = `by TLS, as "${secured.peer.title}"`;
    }
    const peer = new MeasuringSocket(socket, CONNECTION_MS_MAX);
    const reached = (says: string): Finding => ({
      check: "peer",
      level: "ok",
      says: `${name} answers ${who}${says}`,
      values: { connectMs },
    });
    const first = await within(peer.peek(), GREETING_TIMEOUT_MS);
    if (first === undefined) return [reached(`, in ${formatMs(connectMs)}`), NOT_MEASURED];
    const refusal = refusalIn(first);
    if (refusal !== undefined) return [unreachable(`${name} refuses this host: ${refusal}`)];
    const greeting = await peer.line();
    if (greeting !== GREETING) {
      return [unreachable(`What listens at ${name} is no Deltavee, or not of this version`)];
    }
    return [reached(""), ...judgeLink(await measure(peer, clocks))];
  } catch (thrown) {
    const error = toError(thrown);
    const cause = error.cause === undefined ? "" : `: ${toError(error.cause).message}`;
    return [unreachable(`${error.message}${cause}`)];
  } finally {
    socket?.destroy();
  }
}

export function judgeLink(measured: Measurement): Finding[] {
  const { roundTripMs, clockAheadMs, upBytesPerSecond, downBytesPerSecond } = measured;
  const rates = `${formatBytesPerSecond(upBytesPerSecond)} there, ${formatBytesPerSecond(downBytesPerSecond)} back`;
  const says = `${rates}, a round trip of ${formatMs(roundTripMs)}`;
  const values = { upBytesPerSecond, downBytesPerSecond, roundTripMs };
  const isSlow = upBytesPerSecond < LINK_SLOW_BYTES_PER_SECOND;
  const link: Finding = isSlow
    ? {
        check: "link",
        level: "warning",
        says,
        means: "Over such a link a guest of some size takes hours, and a busy one may never arrive",
        advice: "See what it would take: deltavee plan --link RATE --rtt TIME",
        values,
      }
    : { check: "link", level: "ok", says, values };
  return [link, judgeClocks(clockAheadMs, roundTripMs)];
}

function judgeClocks(clockAheadMs: number, roundTripMs: number): Finding {
  const apart = formatMs(Math.abs(clockAheadMs));
  const direction = clockAheadMs > 0 ? "ahead of" : "behind";
  const values = { clockAheadMs, uncertaintyMs: roundTripMs / 2 };
  if (Math.abs(clockAheadMs) <= CLOCKS_APART_MS + roundTripMs / 2) {
    return {
      check: "peer-clock",
      level: "ok",
      says: `the peer's clock is ${apart} ${direction} ours`,
      values,
    };
  }
  return {
    check: "peer-clock",
    level: "warning",
    says: `the peer's clock is ${apart} ${direction} ours`,
    means:
      "Certificates may count as expired, or as not valid yet, on one side; records cannot be put side by side",
    advice: "Have both set by a time service (chrony, systemd-timesyncd)",
    values,
  };
}

const NOT_MEASURED: Finding = {
  check: "link",
  level: "warning",
  says: "not measured: nothing that measures answers there",
  means: 'A "deltavee receive" is not disturbed, and waits on',
  advice: 'Run "deltavee doctor --listen ADDRESS" there instead, for as long as this takes',
};

function unreachable(says: string): Finding {
  const advice =
    "See that it listens there, on an address that is reached from here, and that no firewall is between";
  return {
    check: "peer",
    level: "problem",
    says,
    means: "No migration can be begun to it from here",
    advice,
  };
}

/** What a receiver that does not accept us says of itself. */
function refusalIn(bytes: Buffer): string | undefined {
  const reader = new FrameReader();
  try {
    reader.push(bytes);
    const frame = reader.next();
    return frame?.type === "refuse" ? `${frame.reason.message} (${frame.reason.code})` : undefined;
  } catch {
    // Then it is no frame, and no receiver of ours.
    return undefined;
  }
}

async function within<Value>(promise: Promise<Value>, timeoutMs: number): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  // It fails when the connection is dropped.
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether `deltavee receive` could listen there. */
export async function checkBind(address: Address): Promise<Finding> {
  const name = formatAddress(address);
  try {
    const listener = await listen(address, { onConnection: (socket) => socket.destroy(), onError: () => {} });
    listener.close();
    return { check: "port", level: "ok", says: `${name} is free` };
  } catch (thrown) {
    const error = toError(thrown);
    const cause = error.cause === undefined ? "" : ` (${toError(error.cause).message})`;
    return {
      check: "port",
      level: "problem",
      says: `${error.message}${cause}`,
      means: "deltavee receive cannot listen there",
      advice: "See who does: ss -ltnp; or take another port",
    };
  }
}

/** Answers measurements, one at a time. `told`: who came, and how it ended. */
export function measureFor(
  address: Address,
  options: SecurityOptions,
  told: (text: string) => void,
): Promise<Listener> {
  const identity = chooseIdentity(address, "server", options);
  let isBusy = false;
  const serve = async (socket: Socket): Promise<void> => {
    const from = socket.remoteAddress ?? "a local process";
    socket.on("error", () => {});
    let secured: Socket = socket;
    let isOurs = false;
    try {
      if (identity !== undefined) {
        const connection = await secureServer(socket, identity, CONNECT_TIMEOUT_MS);
        secured = connection.socket;
        if ("why" in connection) throw new Error(`its certificate is not accepted: ${connection.why}`);
      }
      // Only now: a stranger who says nothing keeps nobody from measuring.
      if (isBusy) throw new Error("another measurement is under way");
      isBusy = isOurs = true;
      told(`${from} measures`);
      await answer(secured);
    } catch (thrown) {
      const error = toError(thrown);
      const isDone = "code" in error && error.code === "LINK_CLOSED";
      told(isDone ? `${from} is done` : `${from} was turned away: ${error.message}`);
    } finally {
      secured.destroy();
      if (isOurs) isBusy = false;
    }
  };
  const handlers = {
    onConnection: (socket: Socket) => void serve(socket),
    onError: ({ message }: Error) => told(message),
  };
  return listen(address, handlers, { connectionsMax: STRANGERS_MAX });
}
