// A small HTTP server for the people and programs of this host: the live page, its data, and whatever handlers are
// plugged in (metrics). It only ever shows things: GET and HEAD, no bodies, no cookies, nothing that it does.
//
// It has no authentication. So it listens on loopback unless another address is named, and a request must name a host
// that we are known by (a page on the internet could have its own name point here: DNS rebinding); requests that
// pages of other origins make are refused, and nothing may frame us. Everything is bounded: connections, headers,
// time. A failure of a handler is an answer 500 and a notice, never the end of a migration.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import { hostname } from "node:os";
import { toError, UsageError } from "../base/errors.ts";

const CONNECTIONS_MAX = 64;
const HEADER_BYTES_MAX = 8 * 1024;
const HEADERS_MAX = 50;
const REQUEST_TIMEOUT_MS = 10_000;
/** Of a connection on which nothing moves: one that does not read, or has nothing more to ask. */
const IDLE_TIMEOUT_MS = 45_000;
const KEEP_ALIVE_MS = 5000;
/** How long `close` lets answers under way come to their end. */
const CLOSE_TIMEOUT_MS = 1000;

/** URLs need one; nobody looks at it. */
const BASE = "http://page";

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy":
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
};

/** A request that was let in. */
export interface WebRequest {
  readonly method: "GET" | "HEAD";
  /** Of a base that means nothing: for `pathname` and `searchParams`. */
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
}

/** Answers; may go on doing so after it has returned. The body of a HEAD is left out by node:http. */
export type WebHandler = (request: WebRequest, response: ServerResponse) => void | Promise<void>;

export interface WebServerOptions {
  /** Where to listen. Port 0: the kernel chooses. */
  readonly host: string;
  readonly port: number;
  /** Names that this host is asked by, beside its own, "localhost" and addresses: a scraper's target name, say. */
  readonly hostNames?: readonly string[];
  /** By path prefix: "/metrics" has /metrics and /metrics/..., and "/" what nobody else has. The longest wins. */
  readonly handlers: Readonly<Record<string, WebHandler>>;
  /** Takes what went wrong without ending anything. */
  readonly notice: (message: string) => void;
}

export class WebServer {
  readonly #server: Server;
  readonly #options: WebServerOptions;
  readonly #hostNames: ReadonlySet<string>;
  /** Longest first. */
  readonly #prefixes: readonly string[];

  /** @throws UsageError when it cannot listen there */
  static async listen(options: WebServerOptions): Promise<WebServer> {
    const web = new WebServer(options);
    const { host, port } = options;
    await new Promise<void>((resolve, reject) => {
      web.#server.once("error", (cause) => {
        reject(new UsageError(`Cannot serve the page on ${authority(host, port)}`, { cause }));
      });
      web.#server.listen(port, host, resolve);
    });
    web.#server.removeAllListeners("error");
    web.#server.on("error", ({ message }) => options.notice(`The page: ${message}`));
    return web;
  }

  private constructor(options: WebServerOptions) {
    this.#options = options;
    const { host, handlers, hostNames = [] } = options;
    this.#hostNames = new Set(
      ["localhost", hostname(), host, ...hostNames].map((name) => name.toLowerCase()),
    );
    this.#prefixes = Object.keys(handlers).sort((a, b) => b.length - a.length);
    this.#server = createServer(
      {
        maxHeaderSize: HEADER_BYTES_MAX,
        headersTimeout: REQUEST_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        keepAliveTimeout: KEEP_ALIVE_MS,
        connectionsCheckingInterval: REQUEST_TIMEOUT_MS / 2,
      },
      (request, response) => this.#answer(request, response),
    );
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.maxHeadersCount = HEADERS_MAX;
    this.#server.setTimeout(IDLE_TIMEOUT_MS);
  }

  /** What to type into a browser. */
  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    const { host } = this.#options;
    const isAny = host === "0.0.0.0" || host === "::" || host === "0";
    return `http://${authority(isAny ? hostname() : host, port)}/`;
  }

  /** What must be said where others than this host's users can reach it. */
  get warning(): string | undefined {
    if (isLoopbackName(this.#options.host)) return undefined;
    return `INSECURE: whoever reaches ${this.url} sees the migrations of this host: the page asks nobody who they are`;
  }

  /** Lets answers come to their end for a moment, then ends them. Never rejects. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), CLOSE_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
    response.on("error", () => {
      // The client is gone: nobody is left to be told.
    });
    const why = this.#whyNot(request);
    if (why !== undefined) {
      refuse(response, ...why);
      return;
    }
    const url = new URL(request.url ?? "", BASE);
    const handler = this.#handlerFor(url.pathname);
    if (handler === undefined) {
      refuse(response, 404, "Nothing is there");
      return;
    }
    const method = request.method === "HEAD" ? "HEAD" : "GET";
    void this.#run(handler, { method, url, headers: request.headers }, response);
  }

  /** Of a request that is not let in. */
  #whyNot({ method = "", headers, url = "" }: IncomingMessage): [status: number, why: string] | undefined {
    if (method !== "GET" && method !== "HEAD") return [405, "Only GET and HEAD"];
    if (hasBody(headers)) return [413, "No body is taken"];
    if (!this.#isKnown(headers.host)) return [421, "This host is not known by that name"];
    if (isForeign(headers)) return [403, "Asked for by a page of another site"];
    if (!url.startsWith("/") || !URL.canParse(url, BASE)) return [400, "Not a path"];
    return undefined;
  }

  async #run(handler: WebHandler, request: WebRequest, response: ServerResponse): Promise<void> {
    try {
      await handler(request, response);
    } catch (thrown) {
      this.#options.notice(
        `The page could not answer ${request.url.pathname.slice(0, 100)}: ${toError(thrown).message}`,
      );
      if (response.headersSent) response.destroy();
      else refuse(response, 500, "That failed here; the log says why");
    }
  }

  #handlerFor(path: string): WebHandler | undefined {
    const prefix = this.#prefixes.find(
      (candidate) => candidate === "/" || path === candidate || path.startsWith(`${candidate}/`),
    );
    return prefix === undefined ? undefined : this.#options.handlers[prefix];
  }

  /** Addresses are nobody's to point elsewhere; names must be ours. The port may be a tunnel's, another than ours. */
  #isKnown(host: string | undefined): boolean {
    const name = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host ?? "");
    const bare = (name?.[1] ?? name?.[2] ?? "").toLowerCase();
    return isIP(bare) !== 0 || this.#hostNames.has(bare);
  }
}

/** A plain answer that says why not. */
export function refuse(response: ServerResponse, status: number, why: string): void {
  response.statusCode = status;
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  if (status === 405) response.setHeader("Allow", "GET, HEAD");
  // Whatever else was sent on it is not read.
  if (status === 405 || status === 413) response.setHeader("Connection", "close");
  response.end(`${why}\n`);
}

function hasBody(headers: IncomingMessage["headers"]): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

/** Somebody following a link to us is welcome; another page that fetches from us or embeds us is not. */
function isForeign(headers: IncomingMessage["headers"]): boolean {
  const site = headers["sec-fetch-site"];
  const isOther = site === "cross-site" || site === "same-site";
  return isOther && headers["sec-fetch-mode"] !== "navigate";
}

export function isLoopbackName(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function authority(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
