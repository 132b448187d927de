// Server-sent events: the list of runs, and one run's record as it is written. `/events?run=ID`, three kinds of message:
//   record  an event of the run that was asked for; its id, "ID.SEQUENCE", resumes the stream where it broke off
//   list    at first: what the list of runs says of each
//   run     the same of one that has changed since, twice a second at most
//   gone    the id of a run that is no longer known
//   bye     this process ends, and all that it knew has been said
//
// The migration comes first: what is to be sent is looked for ten times a second, and written only while the client's
// buffer is empty. For a client there is therefore no queue, just the place in the run up to which it has been told.
// One that is too slow gets fewer samples (as record/log.ts thins them), never what takes memory here.

import type { ServerResponse } from "node:http";
import { EventLog } from "../record/log.ts";
import type { BoardRun, NumberedEvent, RunBoard } from "./run-board.ts";
import { refuse, type WebHandler, type WebRequest } from "./server.ts";

/** Browsers take one for each open page. */
const CLIENTS_MAX = 32;
const TICK_MS = 100;
const TICKS_PER_LIST = 5;
/** Well below the server's patience with connections on which nothing moves. */
const TICKS_PER_SIGN_OF_LIFE = 150;
/** A client that is this far behind, and was not before, is told less. */
const EVENTS_BEHIND_MAX = 1000;
const RETRY_MS = 2000;

export class EventStreams {
  readonly #board: RunBoard;
  readonly #clients = new Set<Client>();
  /** Runs whose overview has changed since the list was sent. */
  readonly #changed = new Set<BoardRun>();
  readonly #unsubscribe: () => void;
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;

  constructor(board: RunBoard) {
    this.#board = board;
    this.#unsubscribe = board.subscribe((run) => {
      if (this.#clients.size > 0) this.#changed.add(run);
    });
  }

  readonly handler: WebHandler = (request, response) => {
    if (this.#clients.size >= CLIENTS_MAX) return refuse(response, 503, "Too many are watching already");
    response.setHeader("Content-Type", "text/event-stream");
    // It ends with the stream, so that nothing is waited for when this process does.
    response.setHeader("Connection", "close");
    response.flushHeaders();
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    const { run, sequence } = this.#wish(request);
    const client = new Client(response, run, sequence);
    this.#clients.add(client);
    response.on("close", () => this.#leave(client));
    response.write(`retry: ${RETRY_MS}\n\n`);
    client.tellAll(this.#board.runs);
    client.pump();
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
  };

  /** Everybody is told what is still to be told, as fast as they take it, and that this is all. */
  close(): void {
    this.#unsubscribe();
    for (const client of this.#clients) {
      client.tellRuns(this.#changed);
      client.end();
    }
  }

  /** What is wanted, and how much of it the client has already. */
  #wish({ url, headers }: WebRequest): { run: BoardRun | undefined; sequence: number } {
    const id = url.searchParams.get("run");
    const run = id === null ? undefined : this.#board.find(id);
    const last = /^([0-9a-f]+)\.(\d{1,15})$/.exec(String(headers["last-event-id"] ?? ""));
    return { run, sequence: run !== undefined && last?.[1] === run.id ? Number(last[2]) : 0 };
  }

  #leave(client: Client): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#changed.clear();
  }

  #tick(): void {
    this.#ticks++;
    const isListDue = this.#ticks % TICKS_PER_LIST === 0 && this.#changed.size > 0;
    for (const client of this.#clients) {
      if (isListDue) client.tellRuns(this.#changed);
      client.pump();
      if (this.#ticks % TICKS_PER_SIGN_OF_LIFE === 0) client.signOfLife();
    }
    if (isListDue) this.#changed.clear();
  }
}

class Client {
  readonly #response: ServerResponse;
  readonly #run: BoardRun | undefined;
  /** Of the last event that was written. */
  #sequence: number;
  /** What is being told: bounded as the run's own log is. */
  #pending: readonly NumberedEvent[] = [];
  #told = 0;
  #wasUpToDate = false;
  #isFull = false;
  #isEnding = false;
  /** Runs that have changed while the client took nothing: told when it does. */
  readonly #untold = new Set<BoardRun>();

  constructor(response: ServerResponse, run: BoardRun | undefined, sequence: number) {
    this.#response = response;
    this.#run = run;
    this.#sequence = sequence;
    response.on("drain", () => {
      this.#isFull = false;
      this.tellRuns([]);
      this.pump();
    });
  }

  tellAll(runs: readonly BoardRun[]): void {
    this.#write(`event: list\ndata: ${JSON.stringify(runs.map(({ overview }) => overview))}\n\n`);
  }

  tellRuns(runs: Iterable<BoardRun>): void {
    for (const run of runs) this.#untold.add(run);
    for (const run of this.#untold) {
      if (this.#isFull) return;
      this.#untold.delete(run);
      this.#write(
        run.isForgotten
          ? `event: gone\ndata: ${run.id}\n\n`
          : `event: run\ndata: ${JSON.stringify(run.overview)}\n\n`,
      );
    }
  }

  /** Tells what there is to tell of the run, as long as the client takes it. */
  pump(): void {
    while (!this.#isFull) {
      const next = this.#pending[this.#told++] ?? this.#lookAgain();
      if (next === undefined) break;
      this.#sequence = next.sequence;
      const id = `${this.#run?.id}.${next.sequence}`;
      this.#write(`id: ${id}\nevent: record\ndata: ${JSON.stringify(next.event)}\n\n`);
    }
    if (!this.#isEnding || this.#isFull) return;
    this.#response.end("event: bye\ndata:\n\n");
    // Nothing comes after it.
    this.#isFull = true;
  }

  signOfLife(): void {
    if (!this.#isFull) this.#write(":\n\n");
  }

  end(): void {
    this.#isEnding = true;
    this.pump();
  }

  #lookAgain(): NumberedEvent | undefined {
    const events = this.#run?.eventsAfter(this.#sequence) ?? [];
    const isBehind = this.#wasUpToDate && events.length > EVENTS_BEHIND_MAX;
    this.#pending = isBehind ? thinned(events) : events;
    this.#told = 1;
    this.#wasUpToDate ||= events.length === 0;
    return this.#pending[0];
  }

  #write(text: string): void {
    if (!this.#response.write(text)) this.#isFull = true;
  }
}

function thinned(events: readonly NumberedEvent[]): NumberedEvent[] {
  const log = new EventLog(EVENTS_BEHIND_MAX);
  for (const { event } of events) log.add(event);
  const kept = new Set(log.events);
  return events.filter(({ event }) => kept.has(event));
}
