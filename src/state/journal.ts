// What is to be known of a migration if the process that makes it dies: one small file for each, replaced at every
// step, removed when the migration has come to an end of which nothing is left to be done. Drawn from the run record.
// Nothing in it is secret. Format: docs/reliability.md, "The state file".

import { type DeltaveeError, toError, type VmWhere } from "../base/errors.ts";
import * as v from "../base/schema.ts";
import { type Phase, phaseSchema, type RecordEvent } from "../record/schema.ts";
import { isAlive, ownIdentity, processIdentitySchema } from "./process-identity.ts";
import type { StateFolder } from "./state-folder.ts";

const JOURNAL_VERSION = 1;
/** Progress is for people; each update of the file is some system calls. */
const PROGRESS_EVERY_MS = 1000;

const count = v.pipe(v.number(), v.minValue(0));

const journalEntrySchema = v.object({
  version: v.literal(JOURNAL_VERSION),
  /** Names the migration on both sides (tunnel) or here (direct). */
  session: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  side: v.picklist(["source", "destination"]),
  mode: v.picklist(["direct", "tunnel"]),
  process: processIdentitySchema,
  /** QEMU's monitor, as --qmp takes it. */
  qmp: v.string(),
  /** The other side's address. */
  peer: v.string(),
  startedAt: v.string(),
  /** The last one that was entered; how a migration that has ended did so does not change it. */
  phase: phaseSchema,
  phaseAt: v.string(),
  /** At the source: whether the guest is to run, wherever it is. */
  guestWasRunning: v.optional(v.boolean()),
  /** QEMU's migration settings as they were, where they were changed. */
  settings: v.optional(
    v.object({
      capabilities: v.array(v.object({ capability: v.string(), state: v.boolean() })),
      parameters: v.record(v.number()),
    }),
  ),
  progress: v.optional(
    v.object({
      at: v.string(),
      iteration: v.optional(count),
      remainingBytes: v.optional(count),
      wireBytes: count,
      linkBytesPerSecond: count,
    }),
  ),
  /** Why nothing is done any more although the process may still be there: it has ended, undecided. */
  endedBecause: v.optional(v.string()),
});
export type JournalEntry = v.InferOutput<typeof journalEntrySchema>;

/** What the one who opens a journal knows. */
export type JournalSubject = Pick<
  JournalEntry,
  "session" | "side" | "mode" | "qmp" | "peer" | "guestWasRunning" | "settings"
>;

/** After a failure: a person has to look at the other side before anything is done here. */
const UNDECIDED: ReadonlySet<VmWhere> = new Set(["paused on destination", "unknown"]);

const ENDS: ReadonlySet<Phase> = new Set(["completed", "failed", "cancelled"]);

export class Journal {
  readonly #folder: StateFolder;
  readonly #notice: (message: string) => void;
  /** Asked at every update. */
  readonly #guestRuns: () => boolean | undefined;
  #entry: JournalEntry;
  #progressMs = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #closed = false;

  /** Never throws: a migration does not fail for the sake of its journal. `notice` tells what is lost then. */
  static open(
    folder: StateFolder,
    subject: JournalSubject,
    notice: (message: string) => void,
    guestRuns: () => boolean | undefined = () => undefined,
  ): Journal {
    const journal = new Journal(folder, subject, notice, guestRuns);
    journal.#write({}, true);
    return journal;
  }

  private constructor(
    folder: StateFolder,
    subject: JournalSubject,
    notice: (message: string) => void,
    guestRuns: () => boolean | undefined,
  ) {
    this.#folder = folder;
    this.#notice = notice;
    this.#guestRuns = guestRuns;
    const now = new Date().toISOString();
    const state = { process: ownIdentity(), startedAt: now, phase: "setup", phaseAt: now } as const;
    this.#entry = { version: JOURNAL_VERSION, ...subject, ...state };
  }

  /** To be called with every event of the run record, in the step that the event tells of. */
  readonly listener = (event: RecordEvent): void => {
    if (this.#closed) return;
    if (event.type === "phase" && !ENDS.has(event.phase)) {
      this.#write({ phase: event.phase, phaseAt: new Date().toISOString() });
    } else if (event.type === "sample" && event.atMs - this.#progressMs >= PROGRESS_EVERY_MS) {
      this.#progressMs = event.atMs;
      const { iteration, remainingBytes, wireBytes, linkBytesPerSecond } = event;
      const at = new Date().toISOString();
      this.#write({
        progress: {
          at,
          wireBytes,
          linkBytesPerSecond,
          ...(iteration === undefined ? {} : { iteration }),
          ...(remainingBytes === undefined ? {} : { remainingBytes }),
        },
      });
    }
  };

  /**
   * The migration is over, and QEMU's settings have been put back. The file stays where a person has something left to
   * do: to find out where the guest is, or to connect two QEMUs again of which each has a part of it.
   */
  end(vm: VmWhere, error: DeltaveeError | undefined): void {
    const needsPerson = UNDECIDED.has(vm) || error?.code === "POSTCOPY_INTERRUPTED";
    if (error !== undefined && needsPerson) this.#leave(error.message);
    else this.remove();
  }

  /** Nothing is left to be done. */
  remove(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#removeFile();
  }

  #leave(because: string): void {
    if (this.#closed) return;
    const { settings: _putBack, ...rest } = this.#entry;
    this.#entry = rest;
    this.#write({ endedBecause: because });
    this.#closed = true;
  }

  #write(changes: Partial<JournalEntry>, durable = false): void {
    const guestRuns = this.#guestRuns();
    this.#entry = {
      ...this.#entry,
      ...changes,
      ...(guestRuns === undefined ? {} : { guestWasRunning: guestRuns }),
    };
    try {
      this.#folder.write(entryName(this.#entry), `${JSON.stringify(this.#entry)}\n`, { durable });
    } catch (thrown) {
      // What the file says is not true any more.
      this.#removeFile();
      if (this.#hasFailed) return;
      this.#hasFailed = true;
      this.#notice(
        `deltavee status does not know of this migration: nothing can be written to ${this.#folder.path} ` +
          `(${toError(thrown).message}). Should this process die, use deltavee recover --qmp`,
      );
    }
  }

  #removeFile(): void {
    try {
      this.#folder.remove(entryName(this.#entry));
    } catch (thrown) {
      this.#notice(`Could not remove a state file in ${this.#folder.path}: ${toError(thrown).message}`);
    }
  }
}

/** Does that process still work on it? */
export function isUnderWay(entry: JournalEntry): boolean {
  return entry.endedBecause === undefined && isAlive(entry.process);
}

export function entryName({ session, side }: Pick<JournalEntry, "session" | "side">): string {
  return `${session}-${side}`;
}

export interface KnownMigrations {
  entries: JournalEntry[];
  /** Files that are not used, and why. */
  ignored: string[];
}

/** All that the folder knows of, oldest first. */
export function knownMigrations(folder: StateFolder | undefined): KnownMigrations {
  const known: KnownMigrations = { entries: [], ignored: [] };
  for (const name of folder?.names() ?? []) {
    try {
      const entry = v.parsed(journalEntrySchema, JSON.parse(folder!.read(name)));
      if (entryName(entry) !== name) throw new Error("its name and its content do not belong together");
      known.entries.push(entry);
    } catch (thrown) {
      // Removed since the folder was read: that migration is over.
      if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") continue;
      const reason =
        thrown instanceof v.SchemaError ? "it is no state file of this version" : toError(thrown).message;
      known.ignored.push(`${name}: ${reason}`);
    }
  }
  known.entries.sort((one, other) => one.startedAt.localeCompare(other.startedAt));
  return known;
}
