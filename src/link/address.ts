// Addresses as people type them, and the two things done with one: connect to it, listen on it.
// Knows sockets, not what is said over them: "deltavee://" is carried by TCP like "tcp:"; that the tunnel
// protocol is spoken there is for the caller to see from `kind`.
// "tcp:HOST:PORT" and "unix:PATH" are spelled as QEMU spells its migration URIs.

import { lstatSync } from "node:fs";
import net from "node:net";
import { LinkError, toError, UsageError } from "../base/errors.ts";
import { formatMs } from "../base/units.ts";

export type Address =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "deltavee"; readonly host: string; readonly port: number };

/** sun_path of Linux' sockaddr_un less its NUL: a longer path would be cut off, not refused, by some kernels. */
const UNIX_PATH_BYTES_MAX = 107;

/** Sockets are created with mode 0777 less the umask: this one leaves 0600. */
const UMASK_OWNER_ONLY = 0o177;

/** A name or IPv4 address ("0" too: QEMU's short form of 0.0.0.0), or an IPv6 address in brackets; then a port. */
const HOST_AND_PORT = /^(?:\[([^\]]*)\]|([A-Za-z0-9_.-]+)):(\d{1,5})$/;

/** Host names that would be taken for a prefix when written without one. */
const PREFIX_NAMES: ReadonlySet<string> = new Set(["tcp", "unix"]);

function parseHostAndPort(rest: string, text: string): { host: string; port: number } {
  const match = HOST_AND_PORT.exec(rest);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host !== undefined && (match?.[1] === undefined || net.isIPv6(host)) && port <= 65_535) {
    return { host, port };
  }
  throw new UsageError(`Not an address: "${text}" (${hint(rest)})`);
}

function hint(rest: string): string {
  if (net.isIPv6(rest) || /^[0-9a-f]*:[0-9a-f:]*:\d+$/i.test(rest)) {
    return "an IPv6 address stands in brackets: [::1]:4444";
  }
  if (/^:\d+$/.test(rest))
    return `the host is missing: 127.0.0.1${rest}, or 0.0.0.0${rest} for every interface`;
  if (/^[A-Za-z0-9_.-]+$/.test(rest)) return `the port is missing: ${rest}:4444`;
  if (/:\d+$/.test(rest) && Number(rest.slice(rest.lastIndexOf(":") + 1)) > 65_535) {
    return "ports end at 65535";
  }
  return "expected e.g. 127.0.0.1:4444, tcp:host:4444, [::1]:4444, unix:/run/vm.sock, deltavee://host:4444";
}

/**
 * "tcp:HOST:PORT", "HOST:PORT", "[::1]:PORT", "unix:/path", "deltavee://HOST:PORT". Port 0 is left to the
 * kernel to choose when listening. @throws UsageError that says what is missing
 */
export function parseAddress(text: string): Address {
  const trimmed = text.trim();
  if (trimmed.startsWith("unix:")) {
    const path = trimmed.slice("unix:".length);
    if (path === "" || path.includes("\0")) {
      throw new UsageError(`Not an address: "${text}" (the path is missing: unix:/run/vm.sock)`);
    }
    if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
      throw new UsageError(
        `Not an address: "${text}" (a socket path has at most ${UNIX_PATH_BYTES_MAX} bytes)`,
      );
    }
    return { kind: "unix", path };
  }
  if (trimmed.startsWith("deltavee://")) {
    return { kind: "deltavee", ...parseHostAndPort(trimmed.slice("deltavee://".length), text) };
  }
  const rest = trimmed.startsWith("tcp:") ? trimmed.slice("tcp:".length) : trimmed;
  return { kind: "tcp", ...parseHostAndPort(rest, text) };
}

/** The shortest spelling that parseAddress reads back as the same address. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  const bare = `${net.isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`;
  if (address.kind === "deltavee") return `deltavee://${bare}`;
  return PREFIX_NAMES.has(address.host) ? `tcp:${bare}` : bare;
}

export interface ConnectOptions {
  /** Keep our writing side open when the peer ends its own (net.Socket's allowHalfOpen). */
  allowHalfOpen?: boolean;
  /** Gives up the attempt; has no effect on a connection once it is made. */
  signal?: AbortSignal;
}

/**
 * A connected socket, without Nagle's delay. It has no "error" listener of ours: the caller adds one at once.
 * @throws LinkError LINK_FAILED
 */
export function connect(
  address: Address,
  timeoutMs: number,
  options: ConnectOptions = {},
): Promise<net.Socket> {
  const { allowHalfOpen = false, signal } = options;
  return new Promise((resolve, reject) => {
    const socket =
      address.kind === "unix"
        ? net.connect({ path: address.path, allowHalfOpen })
        : net.connect({ host: address.host, port: address.port, allowHalfOpen, noDelay: true });
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      socket.off("connect", onConnect);
      socket.off("error", onError);
    };
    const fail = (how: string, cause?: unknown): void => {
      settle();
      // An attempt given up may still report its failure: that must not become an uncaught exception.
      socket.on("error", () => undefined);
      socket.destroy();
      reject(new LinkError("LINK_FAILED", `Could not connect to ${formatAddress(address)}${how}`, { cause }));
    };
    const onConnect = (): void => {
      settle();
      resolve(socket);
    };
    const onError = (cause: Error): void => fail("", cause);
    const onAbort = (): void => fail(": given up", signal?.reason);
    const timer = setTimeout(() => fail(` within ${formatMs(timeoutMs)}`), timeoutMs);
    socket.once("connect", onConnect);
    socket.once("error", onError);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort);
  });
}

export interface ListenHandlers {
  /** The socket has no "error" listener yet: add one at once. */
  onConnection: (socket: net.Socket) => void;
  /** A connection was not accepted (too many, no file descriptors left); listening goes on. */
  onError: (error: LinkError) => void;
}

export interface ListenOptions {
  /** Keep our writing side open when the peer ends its own (net.Socket's allowHalfOpen). */
  allowHalfOpen?: boolean;
  /** Further connections are closed as they come in. Without it there is no limit. */
  connectionsMax?: number;
  /** Nothing is read from a connection before its socket's resume(). */
  pauseOnConnect?: boolean;
}

export interface Listener {
  /** Where it listens, with the port that the kernel chose if 0 was asked for. */
  readonly address: Address;
  /** Stops accepting and removes a unix socket's file. Connections already made live on. */
  close(): void;
}

/**
 * Listens, without Nagle's delay on what it accepts. A unix socket can be opened by its owner alone, from the
 * moment it exists. @throws LinkError LINK_FAILED, also for a socket file left behind (it is never removed here)
 */
export async function listen(
  address: Address,
  handlers: ListenHandlers,
  options: ListenOptions = {},
): Promise<Listener> {
  const name = formatAddress(address);
  const server = net.createServer(
    {
      noDelay: address.kind !== "unix",
      allowHalfOpen: options.allowHalfOpen ?? false,
      pauseOnConnect: options.pauseOnConnect ?? false,
    },
    handlers.onConnection,
  );
  if (options.connectionsMax !== undefined) server.maxConnections = options.connectionsMax;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.once("listening", () => {
        server.off("error", reject);
        resolve();
      });
      if (address.kind === "unix") listenOwnerOnly(server, address.path);
      else server.listen({ host: address.host, port: address.port });
    });
  } catch (thrown) {
    const cause = toError(thrown);
    const taken = address.kind === "unix" && "code" in cause && cause.code === "EADDRINUSE";
    const why = taken ? `: ${await explainTaken(address.path)}` : "";
    throw new LinkError("LINK_FAILED", `Could not listen on ${name}${why}`, { cause });
  }
  server.on("error", (cause) => {
    handlers.onError(new LinkError("LINK_FAILED", `Could not accept a connection on ${name}`, { cause }));
  });
  server.on("drop", () => {
    const limit = `more than ${server.maxConnections} connections`;
    handlers.onError(new LinkError("LINK_FAILED", `Refused a connection on ${name}: ${limit}`));
  });
  return { address: boundAddress(server, address), close: () => server.close() };
}

/**
 * chmod after listen would leave a moment in which anybody may connect. Node binds and listens before listen()
 * returns, so the umask of the process is another one for no longer than this call.
 */
function listenOwnerOnly(server: net.Server, path: string): void {
  const umask = process.umask(UMASK_OWNER_ONLY);
  try {
    server.listen({ path });
  } finally {
    process.umask(umask);
  }
}

/** Why bind found the path in use, and what to do: the kernel's EADDRINUSE says neither. */
async function explainTaken(path: string): Promise<string> {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return "a file of that name exists already";
  try {
    const probe = await connect({ kind: "unix", path }, 1000);
    probe.on("error", () => undefined);
    probe.destroy();
    return "another process listens there";
  } catch {
    return `a socket was left behind by a process that has ended; if so, remove it: rm ${path}`;
  }
}

function boundAddress(server: net.Server, asked: Address): Address {
  const bound = server.address();
  if (asked.kind === "unix" || bound === null || typeof bound === "string") return asked;
  return { kind: asked.kind, host: bound.address, port: bound.port };
}
