// Where the guest of a migration is whose process is dead, as far as this host can tell, and what is to be done about
// it: judged from the state file and from what QEMU says now. Pure. The rule: what may be running elsewhere is never let
// run here, and what may be the only copy is never ended, without a person's word; in post-copy neither with it, since
// each QEMU has a part of the guest (docs/decisions/0014-postcopy.md).

import type { VmWhere } from "../base/errors.ts";
import type { MigrationStatus } from "../hypervisor/qemu/qmp-types.ts";
import type { JournalEntry } from "./journal.ts";

export interface Answers {
  kind: "answers";
  running: boolean;
  status: string;
  migration: MigrationStatus | undefined;
}

/** What QEMU says of itself; or nobody listens at its monitor; or somebody may, but gives no answer. */
export type QemuView = Answers | { kind: "gone"; reason: string } | { kind: "silent"; reason: string };

/**
 * What `deltavee recover` does without being told more.
 * - tidy: the guest is where it belongs; QEMU's settings are put back.
 * - cancel: an outgoing migration that nobody carries any more is ended, and the guest goes on.
 * - resume: the guest is let run, as it did.
 * - take-back: a post-copy that was cut off before the guest was given away is brought to an end here, and it goes on.
 * - discard: a QEMU with a part of a guest is ended.
 * - decide: nothing; a person has to.
 * - wait: nothing yet; QEMU is busy.
 * - unreachable: nothing can be done.
 */
export type RecoveryAction =
  | "tidy"
  | "cancel"
  | "resume"
  | "take-back"
  | "discard"
  | "decide"
  | "wait"
  | "unreachable";

export interface Finding {
  vm: VmWhere;
  /** For people: how it is known. */
  explanation: string;
  /** For people: what to do. */
  advice: string;
  action: RecoveryAction;
}

/** What is known of the migration besides; undefined: there is no state file. */
type Known = Pick<JournalEntry, "side" | "mode" | "phase" | "guestWasRunning"> | undefined;

const MIGRATION_ENDS: ReadonlySet<MigrationStatus> = new Set(["none", "completed", "failed", "cancelled"]);

const TO_TIDY = "deltavee recover puts QEMU's settings back and forgets this migration";
const LOOK_THERE =
  "Look at the destination. Only if it has no guest that runs, or can be let run: deltavee recover --resume-here. " +
  "If it has: deltavee recover --give-up-here ends the QEMU here";
const LOOK_AT_SOURCE =
  "Look at the source. Only if the guest does not run there, and never will again: deltavee recover --resume-here. " +
  "If it does: deltavee recover --give-up-here ends the QEMU here";

const CONNECT_AGAIN =
  "End neither QEMU, and do not let it run here by other means: let the two go on with each other, by deltavee recover " +
  "--listen ADDRESS:PORT at the destination, then deltavee recover --to ADDRESS:PORT at the source. Then it runs at the " +
  "destination (docs/decisions/0014-postcopy.md)";

export function isMigrating(view: QemuView): boolean {
  return view.kind === "answers" && view.migration !== undefined && !MIGRATION_ENDS.has(view.migration);
}

/** Source or destination of a post-copy that is not over: it has a part of the guest that nobody else has. */
export function isInPostcopy(view: QemuView): boolean {
  return view.kind === "answers" && view.migration?.startsWith("postcopy-") === true;
}

/** Has the other side's part of a post-copy never been let run? Then all of the guest is at the source. */
export function neverRanHere(known: Known, view: Answers): boolean {
  return known?.side === "destination" && known.phase !== "committed" && !view.running;
}

/** Has QEMU ended its outgoing migration as a success? It then holds a guest that was given away. */
export function hasGivenAway(view: QemuView): boolean {
  return view.kind === "answers" && view.status === "postmigrate";
}

export function judge(known: Known, view: QemuView): Finding {
  if (view.kind === "silent") {
    return {
      vm: "unknown",
      explanation: `QEMU does not answer (${view.reason})`,
      advice: "Is another client connected to its monitor? It serves one at a time",
      action: "unreachable",
    };
  }
  if (view.kind === "answers" && isInPostcopy(view)) return judgePostcopy(known, view);
  if (known === undefined) return judgeUnknown(view);
  return known.side === "source" ? judgeSource(known, view) : judgeDestination(known, view);
}

function judgePostcopy(known: Known, view: Answers): Finding {
  const { running, migration } = view;
  const action = "decide";
  // The source's guest stands still in it.
  if (running) {
    const explanation = `It runs here, in post-copy (${migration}): part of its RAM is still at the source only`;
    return { vm: "running on destination", explanation, advice: CONNECT_AGAIN, action };
  }
  // COMMIT is on file before it is sent; and in direct mode so is the package with which the destination could run it.
  if (known?.side === "source" && known.phase !== "committed") {
    const explanation = `QEMU here was about to hand it over in post-copy (${migration}): all of it is here, and it was not given away`;
    if (migration === "postcopy-paused") {
      const advice = "Do not end the QEMU here. deltavee recover takes the guest back, and it goes on here";
      return { vm: "paused on source", explanation, advice, action: "take-back" };
    }
    const advice = "Do not end the QEMU here, and look again in a moment";
    return { vm: "paused on source", explanation, advice, action: "wait" };
  }
  if (neverRanHere(known, view)) {
    const explanation = `QEMU here is in post-copy (${migration}): it has a part of the guest, and was never told to let it run. All of it is at the source`;
    const advice =
      "Look at the source. If deltavee recover has let it go on there, or will: deltavee recover --give-up-here ends the " +
      `QEMU here. If the source gave it away for good: ${CONNECT_AGAIN}`;
    return { vm: "unknown", explanation, advice, action };
  }
  const explanation =
    known?.side === "source"
      ? `It was given to the destination in post-copy (${migration}), and part of its RAM is still here only`
      : `QEMU here is in post-copy (${migration}): part of the guest's RAM is here only, the rest on the other side`;
  return { vm: "unknown", explanation, advice: CONNECT_AGAIN, action };
}

function judgeSource(known: NonNullable<Known>, view: Exclude<QemuView, { kind: "silent" }>): Finding {
  const committed = known.phase === "committed";
  if (view.kind === "gone") {
    if (committed) {
      const explanation =
        "QEMU here has ended, after the guest was handed over: it is with the destination, or lost";
      return { vm: "unknown", explanation, advice: "Look at the destination", action: "tidy" };
    }
    // Not in direct mode: there nothing that completes it has left before it is on file.
    const mayBeThere = known.mode === "tunnel" && known.phase === "switchover";
    const explanation = mayBeThere
      ? "QEMU here has ended, and the guest with it; the destination may have had all of it, and then waits, paused"
      : "QEMU here has ended, and the guest with it: the destination never had all of it";
    const advice = mayBeThere
      ? "Look at the destination before the VM is started again from its disks"
      : "Start the VM again, from its disks";
    return { vm: "unknown", explanation, advice, action: "tidy" };
  }
  if (hasGivenAway(view)) {
    const explanation =
      known.mode === "tunnel"
        ? "QEMU here has given it away: it is complete at the destination, which has let it run or keeps it paused"
        : "QEMU here has given it away: the destination runs it, or never got the end of it";
    return { vm: "unknown", explanation, advice: LOOK_THERE, action: "decide" };
  }
  if (isMigrating(view)) {
    if (committed) {
      const explanation = "It was handed over, and QEMU here is about to finish";
      return { vm: "unknown", explanation, advice: "Look again in a moment", action: "wait" };
    }
    const explanation = "QEMU here still migrates, to nobody; the destination never had all of the guest";
    const advice = "deltavee recover cancels the migration, and the guest goes on here";
    const vm = view.running ? "running on source" : "paused on source";
    return { vm, explanation, advice, action: "cancel" };
  }
  if (view.running) {
    const explanation = committed
      ? "It runs here although it had been handed over: the destination refused it, or somebody let it run on"
      : "It runs here, and the destination never had all of it";
    const advice = committed ? `Make sure that it does not run at the destination. ${TO_TIDY}` : TO_TIDY;
    return { vm: "running on source", explanation, advice, action: "tidy" };
  }
  if (committed) {
    const explanation = `It was handed over, and is ${view.status} here`;
    return { vm: "unknown", explanation, advice: LOOK_THERE, action: "decide" };
  }
  if (known.guestWasRunning === false) {
    const explanation = "It is paused here, as it was before; the destination never had all of it";
    return { vm: "paused on source", explanation, advice: TO_TIDY, action: "tidy" };
  }
  return {
    vm: "paused on source",
    explanation: `It is ${view.status} here, and the destination never had all of it`,
    advice: "deltavee recover lets it run again",
    action: "resume",
  };
}

function judgeDestination(known: NonNullable<Known>, view: Exclude<QemuView, { kind: "silent" }>): Finding {
  const committed = known.phase === "committed";
  // Written before the source is told, so that without it the source was not.
  const loaded = committed || known.phase === "switchover";
  if (view.kind === "gone") {
    if (!loaded) return onlyAtSource("QEMU here has ended; it held a part of the guest at most", "");
    const explanation = committed
      ? "QEMU here has ended, after the source had given the guest up: its last state is with the source, or lost"
      : "QEMU here has ended; it held a complete copy, and whether the source goes on is not known here";
    return { vm: "unknown", explanation, advice: "Look at the source", action: "tidy" };
  }
  if (view.running) {
    const explanation = committed
      ? "The source has given it up, and it runs here"
      : "Somebody has let it run here";
    const advice = committed ? TO_TIDY : `Make sure that it does not run at the source. ${TO_TIDY}`;
    return { vm: "running on destination", explanation, advice, action: "tidy" };
  }
  if (view.status === "inmigrate" && !loaded) {
    return onlyAtSource("QEMU here holds a part of the guest, of which nothing more will come", "ends it");
  }
  const explanation = committed
    ? "It is complete here, paused, and the source had given it up for good"
    : loaded
      ? "It is complete here, paused; whether the source goes on is not known here"
      : "It is complete here, paused, and the source was not told: it goes on there";
  return { vm: "paused on destination", explanation, advice: LOOK_AT_SOURCE, action: "decide" };
}

function onlyAtSource(explanation: string, what: string): Finding {
  const isThere = what !== "";
  return {
    vm: "running on source",
    explanation: `${explanation}. The guest goes on at the source, or is paused there as it was`,
    advice: isThere ? `deltavee recover ${what}` : "Nothing; deltavee recover forgets this migration",
    action: isThere ? "discard" : "tidy",
  };
}

/** All there is is QEMU itself. */
function judgeUnknown(view: Exclude<QemuView, { kind: "silent" }>): Finding {
  if (view.kind === "gone") {
    const explanation = `No QEMU is there (${view.reason})`;
    return { vm: "unknown", explanation, advice: "Is the address right?", action: "unreachable" };
  }
  const told = "no state file says what it was";
  if (view.status !== "inmigrate" && isMigrating(view)) {
    return {
      vm: "unknown",
      explanation: `QEMU is in the middle of a migration, and ${told}`,
      advice: "If nobody carries it any more, end it by QMP: migrate_cancel",
      action: "decide",
    };
  }
  if (view.running) {
    const explanation = "It runs here; where another copy of it may be is not known";
    return { vm: "unknown", explanation, advice: TO_TIDY, action: "tidy" };
  }
  if (hasGivenAway(view)) {
    return {
      vm: "unknown",
      explanation: `QEMU here has given its guest away, and ${told}`,
      advice: LOOK_THERE,
      action: "decide",
    };
  }
  const explanation =
    view.status === "inmigrate"
      ? `QEMU waits for a guest, or holds a part of one, and ${told}`
      : `The guest here is ${view.status}, and ${told}`;
  const advice = "Look at the other side, then --resume-here or --give-up-here";
  return { vm: "unknown", explanation, advice, action: "decide" };
}
