// The live page of a process: the page itself, the list of runs, one run as it goes on, and a run as a file, all from
// a RunBoard, on a WebServer that can carry other handlers too.

import { EventStreams } from "./event-streams.ts";
import { pageFiles } from "./page-files.ts";
import type { BoardRun, RunBoard } from "./run-board.ts";
import { refuse, type WebHandler, WebServer, type WebServerOptions } from "./server.ts";

export interface LivePage {
  /** What to type into a browser. */
  readonly url: string;
  /** What must be said where others than this host's users can reach it. */
  readonly warning: string | undefined;
  /** Tells whoever watches that this is the end, and stops listening. Never rejects. */
  close(): Promise<void>;
}

export interface LivePageOptions extends Omit<WebServerOptions, "handlers"> {
  readonly board: RunBoard;
  /** Beside the page's own: "/metrics", say. */
  readonly handlers?: WebServerOptions["handlers"];
}

/** @throws UsageError when it cannot listen there */
export async function serveLivePage({ board, handlers, ...options }: LivePageOptions): Promise<LivePage> {
  const streams = new EventStreams(board);
  const server = await WebServer.listen({
    ...options,
    handlers: {
      ...handlers,
      "/": pageFiles(),
      "/runs": runsHandler(board),
      "/events": streams.handler,
    },
  });
  return {
    url: server.url,
    warning: server.warning,
    async close() {
      streams.close();
      await server.close();
    },
  };
}

/** "/runs": the list as JSON. "/runs/ID.ndjson": the run record, as far as it is known here. */
function runsHandler(board: RunBoard): WebHandler {
  return ({ url }, response) => {
    if (url.pathname === "/runs") {
      response.setHeader("Content-Type", "application/json");
      response.end(`${JSON.stringify(board.runs.map(({ overview }) => overview))}\n`);
      return;
    }
    const id = /^\/runs\/([0-9a-f]+)\.ndjson$/.exec(url.pathname)?.[1];
    const run = id === undefined ? undefined : board.find(id);
    if (run === undefined) return refuse(response, 404, "There is no such run, or no longer");
    response.setHeader("Content-Type", "application/x-ndjson");
    response.setHeader("Content-Disposition", `attachment; filename="migration-${run.id}.ndjson"`);
    response.end(recordText(run));
  };
}

function recordText({ events }: BoardRun): string {
  return events.map((event) => `${JSON.stringify(event)}\n`).join("");
}
