// `deltavee recover`: a migration whose process has died is finished or undone, as far as that is safe without
// knowing the other side; what is not is left to a person, who says --resume-here or --give-up-here. What is safe is
// judged in state/whereabouts.ts; this carries it out.

import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import { DeltaveeError, QmpInterruptedError, UsageError } from "../base/errors.ts";
import { completeCutOffPostcopy } from "../hypervisor/qemu/cut-off-postcopy.ts";
import { findLeftSettings, putBackSettings } from "../hypervisor/qemu/outgoing.ts";
import type { QmpAddress, QmpClient } from "../hypervisor/qemu/qmp.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { entryName, isUnderWay, type JournalEntry, knownMigrations } from "../state/journal.ts";
import { monitorName, STATE_DIR_HELP, settingsOf } from "../state/keep.ts";
import { askQemu, withQemu } from "../state/qemu-view.ts";
import { defaultStateFolder, StateFolder } from "../state/state-folder.ts";
import {
  type Answers,
  type Finding,
  hasGivenAway,
  isInPostcopy,
  isMigrating,
  judge,
  neverRanHere,
  type QemuView,
} from "../state/whereabouts.ts";
import { interruption } from "./common.ts";
import { goOnWithDestination, goOnWithSource } from "./recover/reconnect.ts";
import { JsonTelling, type Telling, TextTelling } from "./recover/telling.ts";

interface Options {
  qmp?: QmpAddress;
  resumeHere?: true;
  giveUpHere?: true;
  listen?: QmpAddress;
  to?: QmpAddress;
  stateDir?: string;
  json?: true;
}

/** QEMU takes a moment to cancel, to resume its guest, or to complete what its guard has finished. */
const SETTLE_TIMEOUT_MS = 10_000;
const LOOK_EVERY_MS = 50;
const SESSION_CHARACTERS_MIN = 4;

const HELP = `
Without more being said it does only what is safe whatever the other side does: a source whose guest never left it
goes on, with QEMU's settings put back; a destination that holds a part of a guest is ended. Where the guest may be
complete on both sides nothing is done before somebody has looked at the other side:
  --resume-here   it does not run there, and never will: let it run here. If it does, it then runs TWICE, and its
                  disks are destroyed
  --give-up-here  it runs there: end the QEMU here. If it does not, it is LOST

A post-copy that was cut off after the guest was given away has left a part of it on each side. The two QEMUs then go on
with each other, by QEMU's own recovery, on a connection of their own: plain text, authenticated by nobody.
  --listen  at the destination, first: it waits here for the source, and the guest runs here when all has come
  --to      at the source, then: it sends the rest to where the destination listens

Exit codes: 0 settled, 1 failed, 2 wrong usage, 4 a person must decide (nothing was done), 5 refused: the migration
is under way, or what was asked for contradicts what QEMU says (nothing was done), 130 interrupted while it waited.

Examples:
  deltavee status                                   what there is, and what to do about it
  deltavee recover 6f1c                             by the beginning of its name
  deltavee recover --qmp /run/vm.qmp --resume-here  by its VM, when the destination was seen to have no guest
  Of a post-copy that left a part of the guest on each side, at the destination and then at the source:
    deltavee recover 6f1c --listen 192.0.2.2:4446
    deltavee recover 6f1c --to 192.0.2.2:4446
`;

export function recoverCommand(): Command {
  return new Command("recover")
    .description("finish or undo a migration whose deltavee has died")
    .argument("[session]", "the migration, as deltavee status names it, or the beginning of that")
    .option("--qmp <socket>", "or the QMP monitor of its VM on this host", parseQmpAddress)
    .option("--resume-here", "let the guest run here: it runs nowhere else, as somebody has made sure")
    .option("--give-up-here", "end the QEMU here: the guest is safe elsewhere, as somebody has made sure")
    .option(
      "--listen <address>",
      "destination of a post-copy that was cut off: HOST:PORT or unix:PATH, for the source's QEMU",
      parseQmpAddress,
    )
    .option(
      "--to <address>",
      "source of a post-copy that was cut off: where the destination's QEMU listens",
      parseQmpAddress,
    )
    .option("--state-dir <folder>", STATE_DIR_HELP)
    .option("--json", "print what was done, and where the guest is, as JSON")
    .addHelpText("after", HELP)
    .action(recover);
}

async function recover(session: string | undefined, options: Options): Promise<void> {
  const words = [options.resumeHere, options.giveUpHere, options.listen, options.to];
  if (words.filter((word) => word !== undefined).length > 1) {
    throw new UsageError("--resume-here, --give-up-here, --listen and --to exclude each other");
  }
  const folder = StateFolder.find(options.stateDir ?? defaultStateFolder());
  const { entries } = knownMigrations(folder);
  const chosen = choose(entries, session, options.qmp);
  const entry = chosen.at(-1);
  const alive = chosen.find(isUnderWay);
  if (alive !== undefined) {
    throw new DeltaveeError(
      "RECOVERY_REFUSED",
      `The migration is under way (process ${alive.process.pid}): end that first (Ctrl-C cancels it)`,
    );
  }
  const telling = options.json ? new JsonTelling(entry) : new TextTelling(entry);
  const address = options.qmp ?? parseQmpAddress(entry!.qmp);
  await withQemu(address, async (qmp, view) => {
    const recovery = new Recovery(entry, qmp, telling);
    if (options.resumeHere) await recovery.resumeHere(view);
    else if (options.giveUpHere) await recovery.giveUpHere(view);
    else if (options.listen !== undefined) await recovery.fetchRest(view, options.listen);
    else if (options.to !== undefined) await recovery.sendRest(view, options.to);
    else await recovery.settle(view);
  });
  for (const done of chosen) folder?.remove(entryName(done));
  telling.end();
}

/** By name or by VM. Of one VM there may be several that have died: the last one counts. */
function choose(
  entries: readonly JournalEntry[],
  session: string | undefined,
  qmp: QmpAddress | undefined,
): JournalEntry[] {
  if ((session === undefined) === (qmp === undefined)) {
    throw new UsageError("Which migration? Give either its name (deltavee status shows it) or --qmp");
  }
  if (qmp !== undefined) return entries.filter((entry) => entry.qmp === monitorName(qmp));
  const name = session!.toLowerCase();
  if (name.length < SESSION_CHARACTERS_MIN) {
    throw new UsageError(`Give at least ${SESSION_CHARACTERS_MIN} characters of the migration's name`);
  }
  const found = entries.filter((entry) => entry.session.startsWith(name));
  if (found.length === 1) return found;
  throw new UsageError(
    found.length === 0
      ? `No migration "${session}" is known on this host (deltavee status shows those that are; --qmp takes any VM)`
      : `"${session}" names ${found.length} migrations on this host: give more of it, or --qmp`,
  );
}

class Recovery {
  readonly #entry: JournalEntry | undefined;
  readonly #qmp: QmpClient | undefined;
  readonly #telling: Telling;

  constructor(entry: JournalEntry | undefined, qmp: QmpClient | undefined, telling: Telling) {
    this.#entry = entry;
    this.#qmp = qmp;
    this.#telling = telling;
  }

  /** What is safe. @throws DeltaveeError DECISION_NEEDED when nothing is */
  async settle(view: QemuView): Promise<void> {
    let finding = judge(this.#entry, view);
    if (finding.action === "wait") {
      const settled = await this.#until(
        (seen) => judge(this.#entry, seen).action !== "wait",
        "ends its migration, or finds its connection gone",
      );
      finding = judge(this.#entry, settled);
    }
    switch (finding.action) {
      case "tidy":
        if (view.kind === "answers") await this.#putBack();
        break;
      case "cancel": {
        await this.#qmp!.execute("migrate_cancel");
        const seen = await this.#until((now) => !isMigrating(now), "cancels its migration");
        await this.#goOn(seen);
        break;
      }
      case "resume":
        await this.#goOn(view as Answers);
        break;
      case "take-back":
        await this.#takeBack();
        return;
      case "discard":
        await this.#quit();
        this.#telling.did("Ended the QEMU here");
        break;
      case "decide":
      case "wait":
        throw decisionNeeded(finding);
      case "unreachable":
        throw new DeltaveeError("QMP_UNAVAILABLE", finding.explanation);
    }
    await this.#report(finding);
  }

  /** A person has made sure that it runs nowhere else. */
  async resumeHere(view: QemuView): Promise<void> {
    if (view.kind !== "answers") throw new DeltaveeError("QMP_UNAVAILABLE", view.reason);
    if (judge(this.#entry, view).action === "take-back") {
      await this.#takeBack();
      return;
    }
    this.#refusePostcopy(view);
    let seen = view;
    if (seen.status === "inmigrate") throw refused("QEMU here holds a part of the guest at most");
    if (isMigrating(seen)) {
      const { action } = judge(this.#entry, seen);
      if (action === "cancel") await this.#qmp!.execute("migrate_cancel");
      else if (action !== "wait") throw refused("QEMU is in the middle of a migration");
      seen = await this.#until((now) => !isMigrating(now), "ends its migration");
    }
    if (!seen.running) await this.#resume();
    await this.#putBack();
    this.#telling.did("The guest runs here. If it runs on the other side, too, stop one of them at once");
  }

  /** A person has made sure that it is safe elsewhere. */
  async giveUpHere(view: QemuView): Promise<void> {
    if (view.kind === "silent") throw new DeltaveeError("QMP_UNAVAILABLE", view.reason);
    if (view.kind === "gone" && this.#entry === undefined) {
      throw new DeltaveeError("QMP_UNAVAILABLE", judge(undefined, view).explanation);
    }
    if (view.kind === "answers") {
      if (!neverRanHere(this.#entry, view)) this.#refusePostcopy(view);
      if (view.running) throw refused("The guest runs here");
      const neverLeft =
        this.#entry?.side === "source" && this.#entry.phase !== "committed" && !hasGivenAway(view);
      if (neverLeft) throw refused("The guest is here and nowhere else: the destination never had all of it");
      await this.#quit();
      this.#telling.did("The QEMU here has ended. The guest is the other side's");
      return;
    }
    // It had ended by itself: where the guest is then is not a matter of what was asked for.
    const { vm, explanation, advice } = judge(this.#entry, view);
    this.#telling.found({ vm, explanation });
    this.#telling.did(`  ${advice}.`);
  }

  /** Of a post-copy: all comes here that is still at the source. Then the guest, which was given away, runs here. */
  async fetchRest(view: QemuView, address: QmpAddress): Promise<void> {
    if (this.#entry?.side === "source")
      throw refused("This host is the source: --listen is for the destination");
    this.#requireCutOff(view);
    await untilInterrupted((signal) =>
      goOnWithSource(this.#qmp!, { address, signal, told: (what) => this.#telling.did(what) }),
    );
    // The source's QEMU has sent everything, and is complete: it did not take the guest back, and does not run it.
    const { running } = await askQemu(this.#qmp!);
    if (!running) await this.#resume();
    this.#telling.found({ vm: "running on destination", explanation: "All of it is here, and it runs here" });
  }

  /** The same, at the source. */
  async sendRest(view: QemuView, address: QmpAddress): Promise<void> {
    if (this.#entry?.side === "destination")
      throw refused("This host is the destination: --to is for the source");
    this.#requireCutOff(view);
    if (judge(this.#entry, view).action === "take-back") {
      throw refused(
        "The guest was not given away: deltavee recover without --to takes it back, and it goes on here",
      );
    }
    await untilInterrupted((signal) =>
      goOnWithDestination(this.#qmp!, { address, signal, told: (what) => this.#telling.did(what) }),
    );
    await this.#putBack();
    const explanation =
      "QEMU here has sent all of it: the guest is the destination's (QMP quit ends the QEMU here)";
    this.#telling.found({ vm: "unknown", explanation });
  }

  #requireCutOff(view: QemuView): void {
    if (view.kind !== "answers") throw new DeltaveeError("QMP_UNAVAILABLE", view.reason);
    if (view.migration === "postcopy-paused") return;
    throw refused(`QEMU here has no post-copy that was cut off (its migration: ${view.migration ?? "none"})`);
  }

  /** Neither word fits: with the QEMU here a part of the guest would be lost, and alone it is not whole. */
  #refusePostcopy(view: Answers): void {
    if (!isInPostcopy(view)) return;
    const { explanation, advice } = judge(this.#entry, view);
    throw refused(`${explanation}. ${advice}`);
  }

  /** The guest never left: it goes on as before. */
  async #goOn(view: Answers): Promise<void> {
    // A cancelled migration lets it run by itself, in its own time. But it may have completed before it was cancelled,
    // which shows in its status first, and in that of the guest only some moments later.
    const settled =
      view.status === "finish-migrate"
        ? await this.#until(({ status }) => status !== "finish-migrate", "lets go of the guest")
        : view;
    if (hasGivenAway(settled)) throw decisionNeeded(judge(this.#entry, settled));
    if (this.#entry?.guestWasRunning !== false && !settled.running) await this.#resume();
    await this.#putBack();
  }

  /** Of a post-copy whose guest was not given away: QEMU completes it, and lets go of nothing. */
  async #takeBack(): Promise<void> {
    await completeCutOffPostcopy(this.#qmp!);
    const seen = await this.#until((now) => !isMigrating(now), "completes its migration");
    const mayRun = this.#entry?.guestWasRunning !== false;
    if (mayRun && !seen.running) await this.#resume();
    this.#telling.did("Took the guest back from the post-copy that was cut off");
    await this.#putBack();
    const what = mayRun ? "It runs here" : "It is paused here, as it was before (QMP cont lets it run)";
    this.#telling.found({
      vm: mayRun ? "running on source" : "paused on source",
      explanation: `${what}, and the destination never had all of it`,
    });
  }

  async #resume(): Promise<void> {
    await this.#qmp!.execute("cont");
    await this.#until(({ running }) => running, "lets the guest run");
  }

  async #putBack(): Promise<void> {
    const qmp = this.#qmp!;
    if (this.#entry?.side === "destination") return;
    const settings =
      (this.#entry === undefined ? undefined : settingsOf(this.#entry)) ?? (await findLeftSettings(qmp));
    if (settings === undefined) return;
    await putBackSettings(qmp, settings);
    this.#telling.did("Put QEMU's migration settings back");
  }

  async #quit(): Promise<void> {
    try {
      await this.#qmp!.execute("quit");
    } catch (thrown) {
      // It may end before it answers.
      if (!(thrown instanceof QmpInterruptedError)) throw thrown;
    }
  }

  async #until(reached: (view: Answers) => boolean, what: string): Promise<Answers> {
    const deadlineMs = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const view = await askQemu(this.#qmp!);
      if (reached(view)) return view;
      if (performance.now() > deadlineMs) {
        const state = `it is ${view.status}, its migration ${view.migration ?? "none"}`;
        const text = `QEMU has not reached the point where it ${what} within ${SETTLE_TIMEOUT_MS / 1000} s: ${state}`;
        throw new DeltaveeError("HYPERVISOR_FAILED", text);
      }
      await sleep(LOOK_EVERY_MS);
    }
  }

  /** Where it is now; QEMU may have ended since. */
  async #report(before: Finding): Promise<void> {
    if (before.action === "discard" || this.#qmp === undefined) {
      this.#telling.found(before);
      return;
    }
    this.#telling.found(judge(this.#entry, await askQemu(this.#qmp)));
  }
}

function decisionNeeded({ explanation, advice, vm }: Finding): DeltaveeError {
  return new DeltaveeError("DECISION_NEEDED", `${explanation}. ${advice}`, { vm });
}

function refused(why: string): DeltaveeError {
  return new DeltaveeError("RECOVERY_REFUSED", `${why}: nothing was done`);
}

/** Ctrl-C ends the waiting, not what the two QEMUs do with each other. */
async function untilInterrupted(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const { signal, release } = interruption();
  try {
    await work(signal);
  } finally {
    release();
  }
}
