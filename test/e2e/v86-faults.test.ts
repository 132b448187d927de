// Every fault in every phase, on embedded VMs: where the guest runs afterwards, with which error code, and that its
// memory is whole. One table says what is expected; the table of docs/reliability.md is what this run has seen.

import { expect, test } from "vitest";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { PRECOPY_LIMITS } from "../../src/engine/precopy/precopy.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../../src/engine/switchover/switchover.ts";
import { RecordFile } from "../../src/record/file.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import { encodeFrame } from "../../src/wire/frame.ts";
import { answerHello, helloFrame } from "../../src/wire/handshake.ts";
import { documentedTable, FaultTable } from "../support/fault-table.ts";
import { V86Migration, type V86MigrationOptions, type V86MigrationResult } from "../support/v86-migration.ts";
import type { V86Vm } from "../support/v86-vm.ts";
import { expectOneRuns, HEARTBEATS, type Pair, startPair } from "./v86-scene.ts";

// ---- phases ----

interface Moment {
  options: Partial<V86MigrationOptions>;
  /** The first event at which the migration is there, of the side that knows. */
  side: "source" | "destination";
  isNow: (event: RecordEvent) => boolean;
  afterMs?: number;
  /** The last phase that the source has recorded by then. */
  phase: string;
}

/** The goal cannot be met, so that it iterates until a limit is reached. */
const LONG_ITERATING: Partial<V86MigrationOptions> = {
  method: "delta",
  downtimeMsMax: 1,
  limits: PRECOPY_LIMITS,
};
/** A stop-and-copy of whole pages that takes more than a second. */
const LONG_STOP: Partial<V86MigrationOptions> = {
  method: "standard",
  rate: "20mbit",
  limits: { ...PRECOPY_LIMITS, iterationsMax: 0 },
};
/** Time enough between the last word of one side and its arrival at the other. */
const LONG_WAY: Partial<V86MigrationOptions> = { method: "delta", delayMs: 100, downtimeMsMax: 1000 };

const isPhase = (phase: string) => (event: RecordEvent) => event.type === "phase" && event.phase === phase;

const STOP_AND_COPY: Moment = {
  options: LONG_STOP,
  side: "source",
  isNow: isPhase("switchover"),
  afterMs: 400,
  phase: "switchover",
};

const PHASES: Readonly<Record<string, Moment>> = {
  setup: { options: { method: "delta" }, side: "source", isNow: isPhase("setup"), phase: "setup" },
  "first pass": {
    options: { method: "delta", rate: "20mbit" },
    side: "source",
    isNow: (event) => event.type === "sample" && event.iteration === 0 && event.wireBytes > 5e5,
    phase: "iterating",
  },
  iterating: {
    options: LONG_ITERATING,
    side: "source",
    isNow: (event) => event.type === "sample" && (event.iteration ?? 0) >= 2,
    phase: "iterating",
  },
  "stop-and-copy": STOP_AND_COPY,
  "loaded, not committed": {
    options: LONG_WAY,
    side: "destination",
    isNow: isPhase("switchover"),
    phase: "switchover",
  },
  committed: { options: LONG_WAY, side: "source", isNow: isPhase("committed"), phase: "committed" },
};
type PhaseName = keyof typeof PHASES;

/** Of the stop-and-copy: must come to the same. */
const OTHER_MOMENTS: Readonly<Record<string, Moment>> = {
  "the guest has just been stopped": {
    options: LONG_STOP,
    side: "source",
    isNow: isPhase("switchover"),
    phase: "switchover",
  },
  "the device state": {
    options: LONG_STOP,
    side: "source",
    isNow: ({ type }) => type === "notice",
    phase: "switchover",
  },
};

// ---- faults ----

/** Where the source's run record goes: nowhere, until it is full. */
interface Disk {
  isFull: boolean;
  file: RecordFile;
  failures: string[];
}

interface Fault {
  act: (migration: V86Migration, pair: Pair, disk: Disk) => void;
  options?: (moment: Moment, disk: Disk) => Partial<V86MigrationOptions>;
  dies?: "source" | "destination";
  /** There is no engine at the source any more to say anything. */
  isSourceGone?: boolean;
  /** Also at the other moments of a phase. */
  isThorough?: boolean;
  /** What the run must show beside the outcome. */
  expectSeen?: (result: V86MigrationResult, phase: PhaseName, disk: Disk) => void;
  /** By phase: where the guest runs, and the code of the source, or of the destination where the source is gone. */
  outcome: Partial<Record<PhaseName, string>>;
}

/** Which of the two depends on what was still unread when the connection broke. */
const BROKEN = "LINK_FAILED/LINK_CLOSED";
const BACK_SOON = { reconnectMs: 60_000 };
const GIVEN_UP_SOON = { reconnectMs: 1000 };
const OUTAGE_MS = 500;
/** What takes ten seconds of patience takes two. */
const HURRIED = 5;
const hurriedClock: Clock = {
  nowMs: () => systemClock.nowMs() * HURRIED,
  after: (delayMs, callback) => systemClock.after(delayMs / HURRIED, callback),
};

const FAULTS: Readonly<Record<string, Fault>> = {
  "link cut, back within the limit": {
    act: ({ relay }) => {
      relay.cut();
      relay.stall();
      setTimeout(() => relay.resume(), OUTAGE_MS);
    },
    options: () => BACK_SOON,
    expectSeen: ({ sourceEvents }, phase) => {
      const states = sourceEvents.flatMap((event) => (event.type === "link" ? [event.state] : []));
      expect(states).toEqual(phase === "setup" ? [] : ["lost", "resumed"]);
    },
    outcome: {
      setup: `source ${BROKEN}`,
      "first pass": "destination",
      iterating: "destination",
      "stop-and-copy": "destination",
      "loaded, not committed": "destination",
      committed: "destination",
    },
  },
  "link cut for good": {
    act: ({ relay }) => void relay.close(),
    options: () => GIVEN_UP_SOON,
    isThorough: true,
    outcome: {
      setup: `source ${BROKEN}`,
      "first pass": "source LINK_LOST",
      iterating: "source LINK_LOST",
      "stop-and-copy": "source LINK_LOST",
      "loaded, not committed": "source LINK_LOST",
      committed: "paused on both sides LINK_LOST",
    },
  },
  "link silent for good": {
    act: ({ relay }) => relay.stall(),
    options: ({ options: { downtimeMsMax = 60 } }) => ({
      ...GIVEN_UP_SOON,
      clock: hurriedClock,
      downtimeMsMax: HURRIED * downtimeMsMax,
    }),
    outcome: {
      setup: "source LINK_TIMEOUT",
      "first pass": "source LINK_LOST",
      iterating: "source LINK_LOST",
      "stop-and-copy": "source LINK_LOST",
      "loaded, not committed": "source LINK_LOST",
      committed: "paused on both sides LINK_LOST",
    },
  },
  "source process dies, VM and all": {
    act: (migration) => void migration.killSource(),
    dies: "source",
    isSourceGone: true,
    options: () => GIVEN_UP_SOON,
    outcome: {
      setup: "lost LINK_LOST",
      "first pass": "lost LINK_LOST",
      iterating: "lost LINK_LOST",
      "stop-and-copy": "lost LINK_LOST",
      "loaded, not committed": "paused on destination LINK_LOST",
      committed: "destination",
    },
  },
  "destination process dies, VM and all": {
    act: (migration) => void migration.killDestination(),
    dies: "destination",
    options: () => GIVEN_UP_SOON,
    isThorough: true,
    outcome: {
      setup: `source ${BROKEN}`,
      "first pass": "source LINK_LOST",
      iterating: "source LINK_LOST",
      "stop-and-copy": "source LINK_LOST",
      "loaded, not committed": "paused on source LINK_LOST",
      committed: "paused on source LINK_LOST",
    },
  },
  "source hypervisor dies": {
    act: (_migration, { source }) => void source.die(),
    dies: "source",
    options: () => GIVEN_UP_SOON,
    outcome: {
      setup: "lost HYPERVISOR_FAILED",
      "first pass": "lost HYPERVISOR_FAILED",
      iterating: "lost HYPERVISOR_FAILED",
      "stop-and-copy": "lost HYPERVISOR_FAILED",
      "loaded, not committed": "destination",
      committed: "destination",
    },
  },
  "destination hypervisor dies": {
    act: (_migration, { destination }) => void destination.die(),
    dies: "destination",
    options: () => GIVEN_UP_SOON,
    outcome: {
      setup: "source MIGRATION_FAILED",
      "first pass": "source MIGRATION_FAILED",
      iterating: "source MIGRATION_FAILED",
      "stop-and-copy": "source MIGRATION_FAILED",
      "loaded, not committed": "paused on source MIGRATION_FAILED",
      committed: "paused on source MIGRATION_FAILED",
    },
  },
  "operator cancels at the source": {
    act: ({ sourceEngine }) => void sourceEngine.cancel(),
    options: () => GIVEN_UP_SOON,
    isThorough: true,
    outcome: {
      setup: "source CANCELLED",
      "first pass": "source CANCELLED",
      iterating: "source CANCELLED",
      "stop-and-copy": "source CANCELLED",
      "loaded, not committed": "source CANCELLED",
      committed: "destination",
    },
  },
  "operator cancels at the destination": {
    act: (migration) => void migration.cancelAtDestination(),
    options: () => GIVEN_UP_SOON,
    outcome: {
      setup: `source ${BROKEN}`,
      "first pass": "source MIGRATION_FAILED",
      iterating: "source MIGRATION_FAILED",
      "stop-and-copy": "source MIGRATION_FAILED",
      "loaded, not committed": "destination",
      committed: "destination",
    },
  },
  "peer of a version that has nothing in common": {
    act: () => {},
    options: () => ({
      otherPeer: (socket, hello) => {
        const own = { deltavee: "9.0.0", hypervisor: hello.hypervisor, entropyCodecs: hello.entropyCodecs };
        socket.end(encodeFrame(answerHello(helloFrame(hello), own, { min: 99, max: 99 })));
      },
    }),
    outcome: { setup: "source PROTOCOL_VERSION" },
  },
  "garbage from a stranger": {
    act: (migration) => void migration.strangerSays(Buffer.alloc(5000, "GET / HTTP/1.1\r\n\r\n")),
    options: () => BACK_SOON,
    expectSeen: ({ destinationEvents }) => {
      expect(noticesOf(destinationEvents)).toContainEqual(expect.stringContaining("Connection of somebody:"));
    },
    outcome: {
      setup: "destination",
      "first pass": "destination",
      iterating: "destination",
      "stop-and-copy": "destination",
      "loaded, not committed": "destination",
      committed: "destination",
    },
  },
  "disk of the run record full": {
    act: (_migration, _pair, disk) => {
      disk.isFull = true;
    },
    options: (_moment, disk) => ({
      ...BACK_SOON,
      sourceSink: (line) => disk.isFull && disk.file.write(line),
    }),
    expectSeen: (_result, _phase, { failures }) => {
      expect(failures).toEqual([expect.stringContaining("ENOSPC")]);
    },
    outcome: {
      setup: "destination",
      "first pass": "destination",
      iterating: "destination",
      "stop-and-copy": "destination",
      "loaded, not committed": "destination",
      committed: "destination",
    },
  },
};

// ---- the run ----

const table = new FaultTable("fault", Object.keys(PHASES));
let rowsSeen = 0;

/** The moments of a phase, by what they are called, at which this fault is tried. */
function momentsOf(phase: PhaseName, { isThorough = false }: Fault): [string, Moment][] {
  const moment = PHASES[phase]!;
  return isThorough && moment === STOP_AND_COPY
    ? [[phase, moment], ...Object.entries(OTHER_MOMENTS)]
    : [[phase, moment]];
}

test.each(Object.entries(FAULTS))(
  "%s: where the guest is, whole, and what is said, in each phase",
  async (name, fault) => {
    // Side by side: most of the time is spent waiting, for slow links and for peers that do not answer.
    const cells = Object.keys(fault.outcome).flatMap((phase) =>
      momentsOf(phase, fault).map(async ([at, moment]) => {
        const outcome = await outcomeOf(fault, phase, moment).catch(
          (error: unknown) => `${at}: ${String(error)}`,
        );
        return { phase, outcome };
      }),
    );
    const seen = await Promise.all(cells);
    expect(seen).toEqual(seen.map(({ phase }) => ({ phase, outcome: fault.outcome[phase] })));
    for (const { phase, outcome } of seen) table.note(name, phase, outcome);
    rowsSeen++;
  },
);

/** "where", or "where CODE". */
async function outcomeOf(fault: Fault, phase: PhaseName, moment: Moment): Promise<string> {
  const { act, options, dies, expectSeen } = fault;
  const failures: string[] = [];
  const file = await RecordFile.create("/dev/full", (message) => failures.push(message));
  const disk: Disk = { isFull: false, file, failures };
  const pair = await startPair("ws=4096 rate=2000 pattern=sparse fill=random");
  let phaseThen: string | undefined;
  const disturb = once(moment, (migration) => {
    phaseThen = lastPhase(migration.events.source);
    act(migration, pair, disk);
  });
  const started = await V86Migration.start({
    source: pair.source,
    destination: pair.destination,
    method: "delta",
    comparesMemory: false,
    // How long it stands still is for others to judge: here many of them share the cores.
    downtimeMsMax: DOWNTIME_MS_MAX_DEFAULT,
    ...moment.options,
    ...options?.(moment, disk),
    [moment.side === "source" ? "onSource" : "onDestination"]: disturb,
  });
  const result = await started.result();
  await file.close();
  // It may take its time to die.
  if (dies !== undefined) await pair[dies].die();
  expect(phaseThen, "the phase in which the fault was injected").toBe(moment.phase);
  const where = await whereItIs(pair, result, dies);
  expectSeen?.(result, phase, disk);
  const code = (fault.isSourceGone ? result.destination : result.source)?.error?.code;
  await Promise.all([pair.source.die(), pair.destination.die()]);
  if (code === undefined) return where;
  return `${where} ${BROKEN.split("/").includes(code) ? BROKEN : code}`;
}

test("docs/reliability.md shows what this run has seen", ({ skip }) => {
  skip(
    rowsSeen < Object.keys(FAULTS).length,
    "not all of it was asked for, or not all of it came out as expected",
  );
  const content = table.markdown(Object.keys(FAULTS));
  expect(
    documentedTable("faults", content),
    "renew it with UPDATE_RELIABILITY=1 npm run e2e v86-faults",
  ).toBe(content);
});

/** Looks at the VMs, not at what is said of them, and holds the two together. Nobody's guest is brought back to life. */
async function whereItIs(pair: Pair, result: V86MigrationResult, dies: Fault["dies"]): Promise<string> {
  const { guest, source, destination } = pair;
  expect(guest.violations).toEqual([]);
  const running = [...guest.running];
  expect(running.length).toBeLessThanOrEqual(1);
  if (running[0] === source.name) {
    expect(result.source.vm).toBe("running on source");
    await expectWhole(pair, source);
    expect(destination.lines).toEqual([]);
    return "source";
  }
  if (running[0] === destination.name) {
    await expectWhole(pair, destination);
    return "destination";
  }
  if (dies !== "source") expect(result.source.vm).toBe("unknown");
  const isHere = dies !== "source";
  const isThere = dies !== "destination" && result.destination?.vm === "paused on destination";
  expect(destination.lines).toEqual([]);
  if (!isHere && !isThere) return "lost";
  // A person decides.
  const revived = isThere ? destination : source;
  await revived.host.run();
  await expectWhole(pair, revived);
  if (isHere && isThere) return "paused on both sides";
  return isHere ? "paused on source" : "paused on destination";
}

async function expectWhole({ guest }: Pair, vm: V86Vm): Promise<void> {
  await vm.waitForHeartbeats(HEARTBEATS);
  expect(await vm.verify()).toMatchObject({ ok: true, badPages: 0 });
  expectOneRuns(guest, vm);
}

function lastPhase(events: readonly RecordEvent[]): string | undefined {
  return events.flatMap((event) => (event.type === "phase" ? [event.phase] : [])).at(-1);
}

function noticesOf(events: readonly RecordEvent[]): string[] {
  return events.flatMap((event) => (event.type === "notice" ? [event.message] : []));
}

function once(
  { isNow, afterMs = 0 }: Moment,
  act: (migration: V86Migration) => void,
): (event: RecordEvent, migration: V86Migration) => void {
  let done = false;
  return (event, migration) => {
    if (done || !isNow(event)) return;
    done = true;
    if (afterMs === 0) act(migration);
    else setTimeout(() => act(migration), afterMs);
  };
}
