// A client program as the lab sees it (client/protocol.ts has what they say to each other): a process on the client
// host that is waited for, told what happens to the guest, and asked in the end for what it has seen.

import { basename, join } from "node:path";
import { assert } from "../base/assert.ts";
import { PACKAGE_ROOT } from "../base/package-root.ts";
import { parseMessage, type Word } from "./client/protocol.ts";
import { type Subprocess, startProcess } from "./host-process.ts";
import { LineLog } from "./line-log.ts";
import type { Client, ClientView } from "./model.ts";

/** A client may go through all that it has kept before it says what it has seen. */
const FINISH_TIMEOUT_MS = 60_000;

export interface ClientProcess extends Client {
  readonly pid: number;
  /** Idempotent. */
  stop(): Promise<void>;
}

/** `program`: name of a module of `client/`. */
export function clientProgramPath(program: string): string {
  assert(/^[a-z][a-z-]*$/.test(program), `"${program}" names no client program`);
  return join(PACKAGE_ROOT, "dist/lab/client", `${program}.js`);
}

/** `path`: of a compiled module that calls `runClient`. */
export async function startClientProcess(
  path: string,
  options: Readonly<Record<string, unknown>>,
  netns?: string,
): Promise<ClientProcess> {
  const program = basename(path);
  const messages = new LineLog();
  const child = await startProcess(process.execPath, [path, JSON.stringify(options)], {
    ...(netns === undefined ? {} : { netns }),
    onStdout: (chunk) => messages.push(chunk),
  });
  void child.exited.then(({ code, signal }) => {
    const how = signal ?? `code ${code}`;
    messages.end(new Error(`The client ${program} ended (${how}): ${child.stderrTail()}`));
  });
  return clientOf(program, child, messages);
}

function clientOf(program: string, child: Subprocess, messages: LineLog): ClientProcess {
  const tell = (word: Word) => child.stdin.write(`${word}\n`);
  let view: Promise<ClientView> | undefined;
  return {
    pid: child.pid,
    ready: async (timeoutMs) => {
      const isReady = ({ text }: { text: string }) => parseMessage(text)?.type === "ready";
      await messages.waitFor(isReady, `readiness of the client ${program}`, { timeoutMs });
    },
    tell,
    finish: () => {
      view ??= finish(program, child, messages, () => tell("finish"));
      return view;
    },
    stop: async () => {
      await child.stop();
    },
  };
}

async function finish(
  program: string,
  child: Subprocess,
  messages: LineLog,
  askForView: () => void,
): Promise<ClientView> {
  askForView();
  const isView = ({ text }: { text: string }) => parseMessage(text)?.type === "view";
  const { text } = await messages.waitFor(isView, `view of the client ${program}`, {
    timeoutMs: FINISH_TIMEOUT_MS,
  });
  const message = parseMessage(text);
  assert(message?.type === "view", "waited for a view");
  await child.stop();
  const { metrics, failures, series } = message;
  return { metrics, failures, series };
}
