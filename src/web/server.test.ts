import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { connect } from "node:net";
import { hostname } from "node:os";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { type WebHandler, WebServer } from "./server.ts";

interface Answer {
  status: number | undefined;
  headers: IncomingHttpHeaders;
  body: string;
}

async function start(
  handlers: Record<string, WebHandler> = {},
  options: { host?: string; hostNames?: string[] } = {},
): Promise<{ port: number; notices: string[]; server: WebServer }> {
  const notices: string[] = [];
  const server = await WebServer.listen({
    host: "127.0.0.1",
    port: 0,
    handlers: { "/": (_request, response) => void response.end("here"), ...handlers },
    notice: (message) => notices.push(message),
    ...options,
  });
  onTestFinished(() => server.close());
  return { port: Number(new URL(server.url).port), notices, server };
}

function get(
  port: number,
  path: string,
  {
    method = "GET",
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: "127.0.0.1", port, path, method, headers }, async (response) => {
      try {
        resolve({ status: response.statusCode, headers: response.headers, body: await text(response) });
      } catch (thrown) {
        reject(thrown);
      }
    });
    request.on("error", reject);
    request.end(body);
  });
}

test("Handlers are found by the longest prefix of whole path parts", async () => {
  const says = (word: string): WebHandler => {
    return ({ url }, response) => void response.end(`${word} ${url.pathname} ${url.searchParams.get("q")}`);
  };
  const { port } = await start({ "/metrics": says("metrics"), "/metrics/old": says("old") });
  expect((await get(port, "/metrics?q=1")).body).toBe("metrics /metrics 1");
  expect((await get(port, "/metrics/old/x")).body).toBe("old /metrics/old/x null");
  expect((await get(port, "/metricsx")).body).toBe("here");
  expect((await get(port, "/metrics/../a")).body).toBe("here");
});

test("Every answer carries the headers that keep other sites and foreign scripts out", async () => {
  const { port } = await start();
  for (const answer of [await get(port, "/"), await get(port, "/", { method: "POST" })]) {
    const policy = answer.headers["content-security-policy"];
    expect(policy).toContain("default-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain("unsafe");
    expect(answer.headers["x-content-type-options"]).toBe("nosniff");
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
  }
});

test.each([
  ["another method", { method: "POST" }, 405],
  ["a body", { headers: { "Content-Length": "3" }, body: "abc" }, 413],
  ["a body in chunks", { headers: { "Transfer-Encoding": "chunked" }, body: "abc" }, 413],
  ["a name that is not ours (DNS rebinding)", { headers: { Host: "evil.example:80" } }, 421],
  ["a name that only begins like ours", { headers: { Host: "localhost.evil.example" } }, 421],
  ["no sensible host at all", { headers: { Host: "[::1" } }, 421],
  [
    "a fetch by a page elsewhere",
    { headers: { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" } },
    403,
  ],
] as const)("Refused: %s", async (_what, options, status) => {
  const { port } = await start();
  const answer = await get(port, "/", options);
  expect([answer.status, answer.body === "here"]).toEqual([status, false]);
});

test.each([
  ["localhost at another port, as through an SSH tunnel", { Host: "localhost:8080" }],
  ["an address", { Host: "10.0.0.7:9437" }],
  ["an IPv6 address", { Host: "[::1]:9437" }],
  ["this host by its name", { Host: hostname().toUpperCase() }],
  ["a name that was given", { Host: "monitor.example" }],
  ["a link on another site", { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate" }],
] as const)("Let in: %s", async (_what, headers) => {
  const { port } = await start({}, { hostNames: ["Monitor.example"] });
  expect(await get(port, "/", { headers })).toMatchObject({ status: 200, body: "here" });
});

test("A handler that fails is an answer 500 and a notice; the next request is answered", async () => {
  const { port, notices } = await start({
    "/bad": () => Promise.reject(new Error("it broke")),
  });
  expect((await get(port, "/bad")).status).toBe(500);
  expect(notices).toEqual([expect.stringContaining("/bad: it broke")]);
  expect((await get(port, "/")).status).toBe(200);
});

test("Headers without end are refused, and connections beyond the limit closed", async () => {
  const { port } = await start();
  expect((await get(port, "/", { headers: { "X-Long": "x".repeat(20_000) } })).status).toBe(431);
  const sockets = Array.from({ length: 80 }, () => connect(port, "127.0.0.1"));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
  });
  const closed = await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<boolean>((resolve) => {
          socket.on("error", () => resolve(true));
          socket.on("close", () => resolve(true));
          // One that was let in is answered.
          socket.on("data", () => resolve(false));
          socket.write("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }),
    ),
  );
  expect(closed.filter((isClosed) => isClosed).length).toBeGreaterThanOrEqual(80 - 64);
  expect(closed).toContain(false);
});

test("A port that is taken is a UsageError that names it", async () => {
  const { port } = await start();
  const options = { host: "127.0.0.1", port, handlers: {}, notice: () => {} };
  await expect(WebServer.listen(options)).rejects.toMatchObject({
    code: "USAGE",
    message: `Cannot serve the page on 127.0.0.1:${port}`,
  });
});

test("Only what others can reach is warned of", async () => {
  expect((await start()).server.warning).toBeUndefined();
  expect((await start({}, { host: "0.0.0.0" })).server.warning).toMatch(/^INSECURE: .*asks nobody/);
});

test("Closing ends also what never ends by itself", async () => {
  const { port, server } = await start({
    "/endless": (_request, response) => void response.write("and so on\n"),
  });
  const answer = get(port, "/endless").catch((error: Error) => error.message);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await server.close();
  expect(await answer).toMatch(/aborted|hang up/);
});
