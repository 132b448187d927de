// The control socket: a unix socket that its owner alone can open, over which the service is told what to do. HTTP,
// since everybody has a client for it; bounded in connections, headers, bodies and time.

import { lstatSync, unlinkSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { DeltaveeError, toError, UsageError } from "../base/errors.ts";
import { connect, type Listener, listen } from "../link/address.ts";
import { BODY_BYTES_MAX, statusOf } from "./control-api.ts";

const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 1000;

/** Answers one request: what it returns is the body. Rejects with a DeltaveeError for what cannot be done. */
export type ControlHandler = (parameter: string, body: string) => Promise<Answer> | Answer;

export interface Answer {
  readonly status: 200 | 201;
  readonly body: unknown;
}

/** By method and path; a last part ":" takes any one name, which the handler is given. */
export type ControlRoutes = Readonly<Record<string, ControlHandler>>;

export class ControlServer {
  readonly path: string;
  readonly #http: Server;
  readonly #listener: Listener;

  /** @throws DeltaveeError LINK_FAILED when another process listens there, or nothing can */
  static async listen(
    path: string,
    routes: ControlRoutes,
    notice: (text: string) => void,
    requestTimeoutMs: number = REQUEST_TIMEOUT_MS,
  ): Promise<ControlServer> {
    await removeLeftBehind(path);
    const http = createServer(
      {
        maxHeaderSize: 8 * 1024,
        requestTimeout: requestTimeoutMs,
        headersTimeout: requestTimeoutMs,
        connectionsCheckingInterval: requestTimeoutMs / 2,
        keepAliveTimeout: 1000,
      },
      (request, response) => void answer(request, response, routes, notice),
    );
    // node:http keeps its time limits, and knows its connections, only from this event on.
    http.emit("listening");
    const listener = await listen(
      { kind: "unix", path },
      {
        onConnection: (socket) => {
          http.emit("connection", socket);
        },
        onError: ({ message }) => notice(message),
      },
      { connectionsMax: CONNECTIONS_MAX },
    );
    return new ControlServer(path, http, listener);
  }

  private constructor(path: string, http: Server, listener: Listener) {
    this.path = path;
    this.#http = http;
    this.#listener = listener;
  }

  close(): void {
    this.#listener.close();
    this.#http.close();
    this.#http.closeAllConnections();
  }
}

/** A socket that nobody listens on any more was left by a service that was killed. */
async function removeLeftBehind(path: string): Promise<void> {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  try {
    const socket = await connect({ kind: "unix", path }, PROBE_TIMEOUT_MS);
    socket.on("error", () => {});
    socket.destroy();
  } catch (thrown) {
    const { cause } = toError(thrown);
    if (cause instanceof Error && "code" in cause && cause.code === "ECONNREFUSED") unlinkSync(path);
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  routes: ControlRoutes,
  notice: (text: string) => void,
): Promise<void> {
  try {
    const { pathname } = new URL(request.url ?? "/", "http://service");
    const [handler, parameter] = route(routes, request.method ?? "", pathname);
    const { status, body } = await handler(parameter, await bodyOf(request));
    send(response, status, body);
  } catch (thrown) {
    const error = toError(thrown);
    const known = thrown instanceof DeltaveeError ? thrown : new DeltaveeError("INTERNAL", error.message);
    if (known.code === "INTERNAL") notice(`A request to the control socket failed: ${error.stack ?? error}`);
    const because = known.cause === undefined ? "" : `: ${toError(known.cause).message}`;
    send(response, statusOf(known), { error: { code: known.code, message: `${known.message}${because}` } });
  }
}

function route(routes: ControlRoutes, method: string, pathname: string): [ControlHandler, string] {
  const exact = routes[`${method} ${pathname}`];
  if (exact !== undefined) return [exact, ""];
  const slash = pathname.lastIndexOf("/");
  const named = routes[`${method} ${pathname.slice(0, slash)}/:`];
  if (named === undefined) throw new UsageError(`There is no ${method} ${pathname}`);
  try {
    return [named, decodeURIComponent(pathname.slice(slash + 1))];
  } catch (cause) {
    throw new UsageError(`Not a name: ${pathname.slice(slash + 1)}`, { cause });
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > BODY_BYTES_MAX) throw new UsageError(`A request has at most ${BODY_BYTES_MAX} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": bytes.length });
  response.end(bytes);
}
