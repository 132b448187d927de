// The page's one connection: the list of runs, and the record of the run that is looked at (src/web/event-streams.ts).
// The browser makes it again when it breaks, and the stream goes on where it was; when Deltavee has ended it stays so.

import type { RecordEvent } from "../src/record/schema.ts";
import type { RunOverview } from "../src/web/run-overview.ts";

export type ConnectionState = "connecting" | "live" | "lost" | "ended";

export interface ConnectionListener {
  state(state: ConnectionState): void;
  list(overviews: readonly RunOverview[]): void;
  run(overview: RunOverview): void;
  gone(id: string): void;
  record(event: RecordEvent): void;
}

export class Connection {
  readonly #listener: ConnectionListener;
  #source: EventSource | undefined;
  #state: ConnectionState = "connecting";

  constructor(listener: ConnectionListener) {
    this.#listener = listener;
  }

  get hasEnded(): boolean {
    return this.#state === "ended";
  }

  /** From now on the events of this run, from its first on; undefined: of none. */
  watch(id: string | undefined): void {
    if (this.hasEnded) return;
    this.close();
    const source = new EventSource(id === undefined ? "/events" : `/events?run=${encodeURIComponent(id)}`);
    this.#source = source;
    const on = (type: string, take: (data: string) => void) => {
      source.addEventListener(type, (message: MessageEvent<string>) => {
        if (this.#source === source) take(message.data);
      });
    };
    source.addEventListener("open", () => this.#become("live"));
    source.addEventListener("error", () => this.#become("lost"));
    on("list", (data) => this.#listener.list(JSON.parse(data)));
    on("run", (data) => this.#listener.run(JSON.parse(data)));
    on("gone", (data) => this.#listener.gone(data));
    on("record", (data) => this.#listener.record(JSON.parse(data)));
    on("bye", () => {
      this.close();
      this.#become("ended");
    });
  }

  close(): void {
    this.#source?.close();
    this.#source = undefined;
  }

  #become(state: ConnectionState): void {
    this.#state = state;
    this.#listener.state(state);
  }
}
