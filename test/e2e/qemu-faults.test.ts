// The main faults in the main phases, between real QEMUs 10.0, in both modes: where the guest runs afterwards, with which
// error code, and that its memory is whole. One table says what is expected; that of docs/reliability.md is what this
// run has seen. What else may fail, and finer moments of the switchover: failures.test.ts, crash.test.ts.

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { RecordEvent } from "../../src/record/schema.ts";
import { contradictions, documentedTable, FaultTable, withRows } from "../support/fault-table.ts";
import { ended, type Migration, type Mode } from "../support/migration.ts";
import type { CliRun } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { heartbeatsOf } from "../support/serial.ts";
import { HEARTBEATS, migration, startPair } from "./scene.ts";

const binary = findQemus().get("10.0");

/** Writes more than the link carries, so that its last pass, the guest stopped, takes some two seconds. */
const LOAD = "ws=6144 rate=2000 pattern=page fill=random";
/** Time enough between the last word of one side and its arrival at the other. */
const LINK = { rate: "20mbit", delay: "100ms" };
const GOAL = ["--max-downtime", "10s"];
/** Nobody comes back here: what is resumed is for resumption.test.ts. */
const IMPATIENT = ["--reconnect-timeout", "1s"];
const EVENT_TIMEOUT_MS = 240_000;
/** Long enough for whoever has been told to run the guest to do so. */
const SETTLE_MS = 1000;

// ---- phases ----

interface Moment {
  side: "migrate" | "receive";
  isNow: (event: RecordEvent) => boolean;
}

const isPhase = (phase: string) => (event: RecordEvent) => event.type === "phase" && event.phase === phase;

const PHASES = {
  "pre-copy": { side: "migrate", isNow: (event) => event.type === "sample" && event.wireBytes > 1e6 },
  "stop-and-copy": { side: "migrate", isNow: isPhase("switchover") },
  "loaded, not committed": { side: "receive", isNow: isPhase("switchover") },
  committed: { side: "migrate", isNow: isPhase("committed") },
} as const satisfies Record<string, Moment>;
type PhaseName = keyof typeof PHASES;

// ---- faults ----

type Fault = (running: Migration, destination: QemuVm) => void;

const FAULTS: Readonly<Record<string, Fault>> = {
  "migrate killed": ({ migrate }) => migrate.kill("SIGKILL"),
  "receive killed": ({ receive }) => receive!.kill("SIGKILL"),
  "destination QEMU killed": (_running, destination) => void process.kill(destination.pid, "SIGKILL"),
  "link cut for good": ({ relay }) => relay.kill("SIGKILL"),
  "link silent for good": ({ relay }) => relay.kill("SIGSTOP"),
};

/** Which of them depends on what was still unread: a link that ends and a stock destination that closes look alike. */
const BROKEN_CODES = ["LINK_FAILED", "LINK_CLOSED", "MIGRATION_FAILED"];
const BROKEN = BROKEN_CODES.join("/");

/** More than one: which of them depends on how much of it was on its way by then. */
type Outcomes = readonly string[];

interface Row {
  mode: Mode;
  fault: keyof typeof FAULTS;
  outcome: Partial<Record<PhaseName, Outcomes>>;
}

const direct = (
  fault: Row["fault"],
  preCopy: string,
  stopAndCopy: string | Outcomes,
  committed: string | Outcomes,
): Row => ({
  ...{ mode: "direct", fault },
  outcome: {
    "pre-copy": [preCopy],
    "stop-and-copy": [stopAndCopy].flat(),
    committed: [committed].flat(),
  },
});
/** On a busy machine COMMIT may have arrived by the time of the fault: then the guest is the destination's. */
const COMMIT_UNDER_WAY = ["paused on both sides", "destination"];
const tunnel = (
  fault: Row["fault"],
  code: string,
  loaded = "source",
  committed: string | Outcomes = COMMIT_UNDER_WAY.map((where) => `${where} ${code}`),
): Row => {
  const said = (...where: readonly string[]) => where.map((each) => `${each} ${code}`.trim());
  return {
    ...{ mode: "tunnel", fault },
    outcome: {
      "pre-copy": said("source"),
      "stop-and-copy": said("source"),
      "loaded, not committed": said(loaded),
      committed: typeof committed === "string" ? said(committed) : committed,
    },
  };
};

const ROWS: readonly Row[] = [
  // The buffers on the way may have room for all that is left, the device state included: then it arrives without us,
  // or never, and nobody here can know which. `outcomeOf` says which of the two it may be.
  direct(
    ...(["migrate killed", "source"] as const),
    ["source", "paused on source", "destination"],
    ["paused on source", "destination"],
  ),
  direct(
    ...(["destination QEMU killed", `source ${BROKEN}`] as const),
    [`source ${BROKEN}`, `paused on source ${BROKEN}`],
    `paused on source ${BROKEN}`,
  ),
  direct(
    ...(["link cut for good", `source ${BROKEN}`] as const),
    [`source ${BROKEN}`, `paused on source ${BROKEN}`],
    `paused on source ${BROKEN}`,
  ),
  direct(
    ...(["link silent for good", "source LINK_TIMEOUT"] as const),
    ["source LINK_TIMEOUT", "paused on source LINK_TIMEOUT"],
    "paused on source LINK_TIMEOUT",
  ),
  // COMMIT may have been on its way.
  tunnel("migrate killed", "LINK_LOST", "source", ["paused on both sides LINK_LOST", "destination"]),
  tunnel("receive killed", "LINK_LOST"),
  tunnel("destination QEMU killed", "MIGRATION_FAILED", "paused on source", "paused on source"),
  tunnel("link cut for good", "LINK_LOST"),
  tunnel("link silent for good", "LINK_LOST"),
];

/** The whole table takes some six minutes: it is made when it is renewed, or asked for. Each time: one of each kind. */
const isWhole = process.env.UPDATE_RELIABILITY === "1" || process.env.ALL_FAULTS === "1";
const EACH_TIME = [
  "direct: destination QEMU killed",
  "tunnel: destination QEMU killed",
  "tunnel: link cut for good",
];
const nameOf = ({ mode, fault }: Row) => `${mode}: ${fault}`;
/** For a moment that may have passed: what is to be documented is worth some minutes more. */
const ATTEMPTS_MAX = isWhole ? 6 : 3;
const rows = ROWS.filter((row) => isWhole || EACH_TIME.includes(nameOf(row)));

const table = new FaultTable("QEMU 10.0", Object.keys(PHASES));
const seenRows: string[] = [];

describe.skipIf(binary === undefined)("QEMU", () => {
  test.each(rows)("$mode: $fault", async ({ mode, fault, outcome }) => {
    const phases = Object.keys(outcome) as PhaseName[];
    // At the same time: most of it is waiting.
    const seen = await Promise.all(phases.map((phase) => inTime(mode, fault, phase)));
    for (const [i, phase] of phases.entries()) {
      const { where, isLate } = seen[i]!;
      const said = seen.map((each) => each.where).join(", ");
      // When its time had passed each time, what is right is what is right then; when all was over there was no fault.
      const isRight = outcome[isLate ? "committed" : phase];
      if (!isLate || phase !== "committed") expect(isRight, `${phase}: ${said}`).toContain(where);
      const text = outcome[phase]!.map((each) => each.replace(/ ([A-Z_/]+)$/, ", `$1`")).join(" or ");
      if (isLate) table.noteNotMet(`${mode}: ${fault}`, phase);
      else table.note(`${mode}: ${fault}`, phase, text);
    }
    seenRows.push(`${mode}: ${fault}`);
  });

  test("docs/reliability.md shows what this run has seen", ({ skip }) => {
    skip(seenRows.length === 0, "nothing of it was asked for, or nothing came out as expected");
    // A row that failed has said so, and leaves its line as it is.
    const content = table.markdown(seenRows);
    const documented = documentedTable("qemu-faults", withRows(documentedTable("qemu-faults"), content));
    const renew = "renew it with UPDATE_RELIABILITY=1 npm run e2e qemu-faults";
    expect(documented.split("\n"), renew).toHaveLength(2 + ROWS.length);
    expect(contradictions(documented, content), renew).toEqual([]);
  });
});

/**
 * On a busy machine the moment may have passed before anything is done: it is waited for anew. So it is with a LOADED that
 * its sender could not be killed before: it arrives, and COMMIT may be on its way before the end of the connection does.
 */
async function inTime(
  mode: Mode,
  fault: keyof typeof FAULTS,
  phase: PhaseName,
): Promise<{ where: string; isLate: boolean }> {
  for (let attempt = 1; ; attempt++) {
    const { outcome, hasCommitted, isOver } = await outcomeOf(mode, fault, PHASES[phase]);
    const isLate = phase === "committed" ? isOver : hasCommitted;
    if (!isLate || attempt === ATTEMPTS_MAX) return { where: outcome, isLate };
  }
}

/** "where", or "where CODE", of `migrate`, or of `receive` where that was killed. */
async function outcomeOf(
  mode: Mode,
  fault: keyof typeof FAULTS,
  moment: Moment,
): Promise<{ outcome: string; hasCommitted: boolean; isOver: boolean }> {
  const { source, destination } = await startPair({ binary: binary!, memoryMiB: 64, append: LOAD });
  const patience = mode === "tunnel" ? IMPATIENT : [];
  const running = await migration({
    ...{ mode, source, destination, ...LINK },
    migrateArguments: [...GOAL, ...patience, ...(mode === "tunnel" ? ["--switchover-timeout", "2s"] : [])],
    receiveArguments: patience,
  });
  await running[moment.side]!.stdout.waitFor(
    ({ text }) => text.startsWith("{") && moment.isNow(JSON.parse(text) as RecordEvent),
    "the moment of the fault",
    { timeoutMs: EVENT_TIMEOUT_MS },
  );
  FAULTS[fault]!(running, destination);
  const isSourceGone = fault === "migrate killed";
  const [migrate, receive] = await Promise.all([
    ended(running.migrate),
    running.receive === undefined ? undefined : ended(running.receive),
  ]);
  await sleep(SETTLE_MS);
  const said = (isSourceGone ? receive : migrate)?.stderr ?? "";
  const where = await whereItIs(source, destination);
  // What is said is true.
  const claim = /the VM is: (.*)$/m.exec(migrate.stderr)?.[1];
  if (!isSourceGone && where === "source") expect(claim).toBe("running on source");
  else if (claim !== undefined) expect(claim).toBe("unknown");
  running.relay.kill("SIGKILL");
  await Promise.all([running.stop(), source.stop(), destination.stop()]);
  const code = /^deltavee: ([A-Z_]+): /m.exec(said)?.[1];
  const told = mode === "direct" && BROKEN_CODES.includes(code ?? "") ? BROKEN : code;
  const hasEntered = (run: CliRun | undefined, phase: string) =>
    run?.stdout.lines.some(
      ({ text }) => text.startsWith("{") && isPhase(phase)(JSON.parse(text) as RecordEvent),
    ) === true;
  // Direct: until the device state has left us it goes on here, whatever breaks, and from then on never by itself.
  if (mode === "direct" && !isSourceGone)
    expect(where).toBe(hasEntered(running.migrate, "committed") ? "paused on source" : "source");
  // It runs there because COMMIT has arrived, and for no other reason.
  if (mode === "tunnel" && where === "destination")
    expect(hasEntered(running.receive, "committed")).toBe(true);
  return {
    outcome: told === undefined ? where : `${where} ${told}`,
    hasCommitted: hasEntered(running.migrate, "committed"),
    isOver: hasEntered(running.migrate, "completed"),
  };
}

/** Looks at the VMs, not at what is said of them. Where none runs a person decides, and it is whole. */
async function whereItIs(source: QemuVm, destination: QemuVm): Promise<string> {
  const [sourceRuns, destinationRuns] = await Promise.all([runsNow(source), runsNow(destination)]);
  expect(sourceRuns && destinationRuns).toBe(false);
  if (sourceRuns || destinationRuns) {
    expect(await (sourceRuns ? source : destination).verify()).toMatchObject({ ok: true, badPages: 0 });
    return sourceRuns ? "source" : "destination";
  }
  const [isHere, isThere] = await Promise.all([isComplete(source), isComplete(destination)]);
  if (!isHere && !isThere) return "lost";
  const revived = isThere ? destination : source;
  await revived.qmp.execute("cont");
  await revived.waitForHeartbeats(HEARTBEATS);
  expect(await revived.verify()).toMatchObject({ ok: true, badPages: 0 });
  if (isHere && isThere) return "paused on both sides";
  return isHere ? "paused on source" : "paused on destination";
}

/** Has all of the guest, paused: given away, or loaded. */
async function isComplete(vm: QemuVm): Promise<boolean> {
  const ended = await Promise.race([vm.exited.then(() => true), sleep(0).then(() => false)]);
  if (ended) return false;
  const { status } = await vm.qmp.execute("query-status");
  return status === "postmigrate" || status === "paused";
}

/** Whether the guest does, not what is said of it. */
async function runsNow(vm: QemuVm): Promise<boolean> {
  const from = vm.serial.lines.length;
  await sleep(SETTLE_MS);
  return heartbeatsOf(vm.serial.lines.slice(from)).length > 0;
}
