// What the lab and a client program say to each other: the program is started with its options as one argument of
// JSON; it hears words on stdin, a line each, and answers on stdout in NDJSON: that it is ready, and in the end what it
// has seen. This file has both halves' messages and the program's half; the lab's half is ../client-process.ts.

import { createInterface } from "node:readline";
import { toError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";

/** What a client is told. */
export const WORDS = ["migration-begins", "migration-ended", "finish"] as const;
export type Word = (typeof WORDS)[number];

const viewSchema = v.object({
  type: v.literal("view"),
  metrics: v.record(v.number()),
  failures: v.array(v.string()),
  series: v.array(
    v.object({
      name: v.string(),
      unit: v.string(),
      points: v.array(v.object({ epochMs: v.number(), value: v.number() })),
    }),
  ),
});

const messageSchema = v.variant("type", [v.object({ type: v.literal("ready") }), viewSchema]);

/** What a client answers: "ready" once, then once its view. */
export type ClientMessage = v.InferOutput<typeof messageSchema>;

/** Undefined for a line that is none, as a library under a client may print one. */
export function parseMessage(line: string): ClientMessage | undefined {
  return v.checked(messageSchema, parseJson(line)).value;
}

export type Phase = "before" | "during" | "after";

/** What a client program has of the lab. */
export interface Lab {
  /** As they came: a program checks them with a schema of its own. */
  readonly options: unknown;
  /** The migration's, as far as the lab has told: the guest may be at the destination before "after". */
  readonly phase: Phase;
  /** When it was told (`epochNowMs`); undefined until then. */
  readonly migrationBeganMs: number | undefined;
  readonly migrationEndedMs: number | undefined;
  /** Resolves when the program is to end and tell what it has seen. */
  readonly finishing: Promise<void>;
  /** Says that what the program does is steady. */
  ready(): void;
}

/** The clock of `ClientView.series`, which all processes of a host share. */
export function epochNowMs(): number {
  return performance.timeOrigin + performance.now();
}

/**
 * The whole of a client program: `watch` uses the guest until `lab.finishing` and resolves to what it has seen. What
 * it throws is printed on stderr and ends the process with code 1; so does the lab's end, without a view.
 */
export async function runClient(watch: (lab: Lab) => Promise<ClientView>): Promise<void> {
  let [beganMs, endedMs]: (number | undefined)[] = [];
  let finish = (): void => {};
  const finishing = new Promise<void>((resolve) => {
    finish = resolve;
  });
  let hasFinished = false;
  const words = createInterface({ input: process.stdin });
  words.on("line", (word) => {
    if (word === ("migration-begins" satisfies Word)) beganMs ??= epochNowMs();
    else if (word === ("migration-ended" satisfies Word)) endedMs ??= epochNowMs();
    else if (word === ("finish" satisfies Word)) {
      hasFinished = true;
      finish();
    }
  });
  words.once("close", () => {
    if (!hasFinished) fail(new Error("The lab has ended"));
  });
  const lab: Lab = {
    options: parseJson(process.argv[2] ?? ""),
    get phase() {
      return endedMs !== undefined ? "after" : beganMs !== undefined ? "during" : "before";
    },
    get migrationBeganMs() {
      return beganMs;
    },
    get migrationEndedMs() {
      return endedMs;
    },
    finishing,
    ready: () => say({ type: "ready" }),
  };
  try {
    // What does not fit the schema (a metric that is NaN) is an error of the program, found here.
    const view = v.parsed(viewSchema, { type: "view", ...(await watch(lab)) });
    // A pipe may take a long line piece by piece: the process ends when all of it has gone.
    process.stdout.write(`${JSON.stringify(view)}\n`, () => process.exit(0));
  } catch (thrown) {
    fail(toError(thrown));
  }
}

function say(message: ClientMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function fail(error: Error): void {
  process.stderr.write(`${error.stack ?? error.message}\n`, () => process.exit(1));
}

/** Undefined for what is no JSON: no schema takes that. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
