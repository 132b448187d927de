import { get as httpGet, type IncomingMessage } from "node:http";
import { gunzipSync } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { simulatedRecord } from "../../test/support/simulated-record.ts";
import { parseRecord } from "../record/reader.ts";
import type { RecordEvent } from "../record/schema.ts";
import { type LivePage, serveLivePage } from "./live-page.ts";
import { RunBoard, type RunFeed } from "./run-board.ts";

interface Message {
  event: string;
  data: string;
  id: string | undefined;
}

/** What an EventSource would hear. */
class Listener {
  readonly messages: Message[] = [];
  response: IncomingMessage | undefined;
  ended = false;
  #partial = "";
  #heard: () => void = () => {};

  static async open(url: URL, lastEventId?: string): Promise<Listener> {
    const listener = new Listener();
    const headers = lastEventId === undefined ? {} : { "Last-Event-ID": lastEventId };
    const request = httpGet(url, { headers }, (response) => {
      listener.response = response;
      response.setEncoding("utf8");
      response.on("data", (text: string) => listener.#take(text));
      response.on("close", () => {
        listener.ended = true;
        listener.#heard();
      });
      listener.#heard();
    });
    request.on("error", () => {
      listener.ended = true;
      listener.#heard();
    });
    onTestFinished(() => {
      request.destroy();
    });
    await listener.until(() => listener.response !== undefined);
    return listener;
  }

  get records(): RecordEvent[] {
    return this.messages.filter(({ event }) => event === "record").map(({ data }) => JSON.parse(data));
  }

  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      await new Promise<void>((resolve) => {
        this.#heard = resolve;
      });
    }
  }

  #take(text: string): void {
    this.#partial += text;
    for (let end = this.#partial.indexOf("\n\n"); end >= 0; end = this.#partial.indexOf("\n\n")) {
      const lines = this.#partial.slice(0, end).split("\n");
      this.#partial = this.#partial.slice(end + 2);
      const field = (name: string) =>
        lines
          .find((line) => line.startsWith(`${name}:`))
          ?.slice(name.length + 1)
          .trim();
      const event = field("event");
      if (event !== undefined) this.messages.push({ event, data: field("data") ?? "", id: field("id") });
    }
    this.#heard();
  }
}

const events = simulatedRecord("delta");

async function start(): Promise<{
  board: RunBoard;
  feed: RunFeed;
  page: LivePage;
  at: (path: string) => URL;
}> {
  const board = new RunBoard();
  const feed = board.open({ label: "vm" });
  const page = await serveLivePage({
    board,
    host: "127.0.0.1",
    port: 0,
    handlers: { "/metrics": (_request, response) => void response.end("up 1\n") },
    notice: (message) => expect.unreachable(message),
  });
  onTestFinished(() => page.close());
  return { board, feed, page, at: (path) => new URL(path, page.url) };
}

test("The page is whole: each file that it names is there, compressed, and changes with its tag alone", async () => {
  const { at } = await start();
  const html = await (await fetch(at("/"))).text();
  const names = [...html.matchAll(/(?:href|src)="(\/[^"]+)"/g)].map(([, name]) => name!);
  expect(names).toEqual(expect.arrayContaining(["/style.css", "/dashboard/main.js", "/dashboard/icon.svg"]));
  expect(names.filter((name) => name.endsWith(".js")).length).toBeGreaterThan(15);
  for (const name of names) {
    const answer = await fetch(at(name));
    expect([name, answer.status]).toEqual([name, 200]);
    // What a module imports is named, too: the browser fetches all of them at once.
    for (const [, imported] of (await answer.text()).matchAll(/ from "(\.[^"]+)";/g)) {
      expect(names).toContain(new URL(imported!, at(name)).pathname);
    }
  }
  expect(html).not.toMatch(/<script>|https?:|style="| on[a-z]+="/);
  const style = await fetch(at("/style.css"));
  const again = await fetch(at("/style.css"), { headers: { "If-None-Match": style.headers.get("etag")! } });
  expect(again.status).toBe(304);
  const zipped = await new Promise<Buffer>((resolve) => {
    httpGet(at("/style.css"), { headers: { "Accept-Encoding": "gzip" } }, async (response) => {
      resolve(Buffer.concat(await response.toArray()));
    });
  });
  expect(gunzipSync(zipped).toString()).toBe(await style.text());
  expect((await fetch(at("/dashboard/../../package.json"))).status).toBe(404);
  expect((await fetch(at("/dashboard/%2e%2e/%2e%2e/package.json"))).status).toBe(404);
  expect(await (await fetch(at("/metrics"))).text()).toBe("up 1\n");
});

test("Runs are listed, and each is a record that can be read again", async () => {
  const { feed, at } = await start();
  for (const event of events) feed.event(event);
  const list = await (await fetch(at("/runs"))).json();
  expect(list).toMatchObject([{ id: feed.id, label: "vm", isRunning: false, phase: "completed" }]);
  const answer = await fetch(at(`/runs/${feed.id}.ndjson`));
  expect(answer.headers.get("content-disposition")).toContain("attachment");
  expect(parseRecord(await answer.text(), "served").events).toEqual(events);
  expect((await fetch(at("/runs/0123.ndjson"))).status).toBe(404);
});

test("Who watches hears the list, then all events in order, those to come too, and the end", async () => {
  const { feed, page, at } = await start();
  for (const event of events.slice(0, 50)) feed.event(event);
  const listener = await Listener.open(at(`/events?run=${feed.id}`));
  await listener.until(() => listener.records.length >= 50);
  expect(listener.messages[0]?.event).toBe("list");
  for (const event of events.slice(50)) feed.event(event);
  await listener.until(() => listener.records.length >= events.length);
  expect(listener.records).toEqual(events);
  await listener.until(() =>
    listener.messages.some(({ event, data }) => event === "run" && !JSON.parse(data).isRunning),
  );
  await page.close();
  await listener.until(() => listener.ended);
  expect(listener.messages.at(-1)?.event).toBe("bye");
});

test("What happens just before the end is heard, too", async () => {
  const { feed, page, at } = await start();
  const listener = await Listener.open(at(`/events?run=${feed.id}`));
  for (const event of events) feed.event(event);
  await page.close();
  await listener.until(() => listener.ended);
  expect(listener.records).toEqual(events);
  expect(listener.messages.at(-1)?.event).toBe("bye");
});

test("A stream that broke goes on after the last event that was heard", async () => {
  const { feed, at } = await start();
  for (const event of events.slice(0, 100)) feed.event(event);
  const listener = await Listener.open(at(`/events?run=${feed.id}`), `${feed.id}.40`);
  await listener.until(() => listener.records.length >= 60);
  expect(listener.records).toEqual(events.slice(40, 100));
  // Of another run, or of an earlier process: from the beginning.
  const other = await Listener.open(at(`/events?run=${feed.id}`), "0123.40");
  await other.until(() => other.records.length >= 100);
  expect(other.records).toEqual(events.slice(0, 100));
});

test("A client that reads nothing costs no memory, and hears in the end what matters", async () => {
  const { feed, at } = await start();
  const listener = await Listener.open(at(`/events?run=${feed.id}`));
  for (const event of events.slice(0, 10)) feed.event(event);
  await listener.until(() => listener.records.length >= 10);
  listener.response!.pause();
  const filler = "x".repeat(3000);
  let atMs = events[9]!.atMs;
  const decisions: string[] = [];
  for (let round = 0; round < 30; round++) {
    for (let count = 0; count < 200; count++) {
      const sample = events.find(({ type }) => type === "sample")!;
      feed.event({ ...sample, atMs: ++atMs });
    }
    feed.event({ type: "decision", atMs: ++atMs, subject: "s", choice: `${round}`, reason: filler });
    decisions.push(`${round}`);
    // Time for the server to write, were it to.
    if (round % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 150));
  }
  listener.response!.resume();
  await listener.until(() => listener.records.at(-1)?.atMs === atMs);
  const heard = listener.records;
  expect(heard.flatMap((event) => (event.type === "decision" ? [event.choice] : []))).toEqual(decisions);
  expect(heard.length).toBeLessThan(6030);
  expect(heard.map((event) => event.atMs)).toEqual(
    heard.map((event) => event.atMs).toSorted((a, b) => a - b),
  );
});

test("There is a limit to those who watch", async () => {
  const { at } = await start();
  const all = [];
  for (let count = 0; count < 33; count++) all.push(await Listener.open(at("/events")));
  expect(all.map(({ response }) => response?.statusCode)).toEqual([...Array(32).fill(200), 503]);
});
