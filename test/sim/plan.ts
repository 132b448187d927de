// What a seed means: every choice of a simulated migration, drawn before it begins. Readable as it is printed.

import type { DeltaCodecId } from "../../src/codec/delta/delta-codec.ts";
import { DELTA_CODEC_NAMES } from "../../src/codec/delta/delta-codecs.ts";
import { ENTROPY_LZ4, ENTROPY_NONE, ENTROPY_ZSTD } from "../../src/codec/entropy/entropy-coder.ts";
import type { StallPolicy } from "../../src/engine/switchover/stall-policies.ts";
import { POLICIES } from "../../src/memory/policy/all.ts";
import { Random } from "./random.ts";
import type { LineConditions } from "./sim-connection.ts";
import { PAGE_BYTES, type Workload } from "./sim-guest.ts";
import type { IncomingFaults, IncomingTraits } from "./sim-incoming.ts";
import type { OutgoingFaults, OutgoingTraits } from "./sim-outgoing.ts";
import type { PostcopyTraits } from "./sim-postcopy-guest.ts";
import type { PrecopyFaults, PrecopyTraits } from "./sim-precopy.ts";

/** What can be done to a running migration. */
export const FAULTS = [
  "connection lost",
  "link away",
  "stalled to destination",
  "stalled to source",
  "stalled for ever",
  "link slow",
  "source engine crashes",
  "destination engine crashes",
  "source hypervisor crashes",
  "destination hypervisor crashes",
  "cancelled at source",
  "cancelled at destination",
  "cancelled at the monitor",
  "source monitor lost",
] as const;
export type Fault = (typeof FAULTS)[number];

/** Moments that a fault may wait for, by their names in the log. */
const TUNNEL_STEPS = [
  "source sends hello",
  "destination sends welcome",
  "source sends data",
  "destination sends ack",
  "destination sends return",
  "destination sends loaded",
  "source sends commit",
  "destination sends running",
  "source sends resume",
  "source sends resume",
  "destination sends resumed",
  "destination sends resumed",
  "source sends done",
  "source sends abort",
  "destination sends abort",
] as const;
/** Reached only when a connection was lost before. */
const RESUMING_STEPS: readonly (string | undefined)[] = ["source sends resume", "destination sends resumed"];
const COMMON_STEPS = [
  "source phase iterating",
  "source phase switchover",
  "source phase committed",
  "source phase completed",
  "source phase failed",
  "source gets SWITCHOVER_ACK",
  "source stops the guest",
  "source hands over device state",
  "source has handed over everything",
  "source gets SHUT 0",
  "source completes",
  "destination has loaded everything",
  "destination runs the guest",
] as const;
const DESTINATION_STEPS = [
  "destination phase iterating",
  "destination phase switchover",
  "destination phase committed",
  "destination phase completed",
] as const;

const POSTCOPY_STEPS = [
  "source is told to go on as post-copy",
  "source stops the guest",
  "source hands over the package",
  "destination asks for a page",
  "destination could run the guest",
  "destination phase switchover",
  "destination sends ready",
  "destination sends ready",
  "source phase committed",
  "source sends commit",
  "source sends commit",
  "destination phase committed",
  "destination runs the guest",
  "destination sends running",
  "destination sends running",
  "source is asked for a page",
  "source has handed over everything",
  "destination has loaded everything",
  "destination sends loaded",
  "source gets SHUT 0",
  "source completes",
  "source sends done",
] as const;

export interface PlannedFault {
  fault: Fault;
  /** Begins at the `count`th step of this name, or (without one) at `delayMs`. */
  step: string | undefined;
  count: number;
  /** At once: before what the step announces has happened. */
  delayMs: number;
  /** How long it lasts, and when each side notices a lost connection. */
  ms: number;
  /** Of lost connections: so many of those that follow are lost too, each after so long. */
  repeats: number;
  repeatsAfterMs: number;
  sourceNoticesMs: number | undefined;
  destinationNoticesMs: number | undefined;
}

export interface Plan {
  seed: number;
  mode: "direct" | "tunnel";
  hypervisor: "qemu" | "precopy";
  guestRuns: boolean;
  workload: Workload;
  downtimeMsMax: number;
  onStall: StallPolicy;
  /** The migration may end as post-copy; its guest is one that never lets pre-copy end. */
  postcopy: PostcopyTraits | undefined;
  timeMsMax: number | undefined;
  wireBytesMax: number | undefined;
  /** Undefined: method standard. */
  cacheBytes: number | undefined;
  policy: number;
  deltaCodec: DeltaCodecId;
  entropyCodecs: number[];
  baselineBytesMax: number;
  coderMsMax: number;
  /** The coder fails at its so manieth job: a thread of it has died. */
  sourceCoderFailsAt: number | undefined;
  destinationCoderFailsAt: number | undefined;
  /** Sends no faster than this by itself. */
  pacedBytesPerSecond: number | undefined;
  /** Batches that the destination takes in before it has to stop reading. */
  destinationSlots: number;
  toDestination: LineConditions;
  toSource: LineConditions;
  outgoing: OutgoingTraits;
  outgoingFaults: OutgoingFaults;
  precopy: PrecopyTraits;
  precopyFaults: PrecopyFaults;
  incoming: IncomingTraits;
  incomingFaults: IncomingFaults;
  staysPaused: boolean;
  /** A tunnel that breaks is resumed: how long each side tries. */
  resumption: { sourceMs: number; destinationMs: number; switchoverMs: number | undefined } | undefined;
  otherHypervisor: boolean;
  otherVersion: boolean;
  /** Lines of the run record after which the disk is full. */
  sourceDiskLines: number | undefined;
  destinationDiskLines: number | undefined;
  faults: PlannedFault[];
}

/** Of the migrations in which it can be: each takes as long as three others. */
const POSTCOPY_SHARE = 0.12;

export function drawPlan(seed: number): Plan {
  const random = new Random(seed);
  const mode = random.chance(0.35) ? "direct" : "tunnel";
  const hypervisor = mode === "tunnel" && random.chance(0.25) ? "precopy" : "qemu";
  const rarely = (probability: number) => random.chance(probability);
  const pageCount = random.weighted([
    [random.int(4, 16), 4],
    [random.int(16, 64), 5],
    [random.int(64, 200), 1],
  ]);
  const ramBytes = pageCount * PAGE_BYTES;
  const rounds = random.magnitude(0.02, 3);
  // So that a pass over all of RAM takes some ten to some hundred milliseconds.
  const bytesPerSecond = random.magnitude(Math.max(4e5, ramBytes / 0.6), Math.max(1e7, ramBytes / 0.01));
  const delayMs = random.pick([0, 0.1, 1, 5, 20, 80]);
  const line = (): LineConditions => ({
    bytesPerSecond,
    delayMs,
    jitterMs: random.pick([0, 0, 1, delayMs]),
    pieceBytesMax: random.pick([97, 1460, 8192, 65_536, 65_536]),
    systemBytesMax: random.pick([4096, 16_384, 65_536, 212_992, 1 << 20]),
    highWaterBytes: random.pick([1, 16_384, 65_536]),
  });
  const socket = (): LineConditions => ({
    bytesPerSecond: random.magnitude(2e7, 2e9),
    delayMs: random.pick([0, 0, 0.05]),
    jitterMs: random.pick([0, 0, 0.3]),
    pieceBytesMax: random.pick([211, 4096, 65_536, 65_536, 65_536]),
    systemBytesMax: random.pick([4096, 65_536, 212_992, 212_992]),
    highWaterBytes: random.pick([1, 16_384, 65_536]),
  });
  const faultCount = random.weighted([
    [0, 12],
    [1, 58],
    [2, 22],
    [3, 8],
  ]);
  const plan: Plan = {
    seed,
    mode,
    hypervisor,
    guestRuns: random.chance(0.93),
    workload: {
      pageCount,
      zeroShare: random.pick([0, 0.2, 0.7]),
      writesPerMs: (rounds * bytesPerSecond) / PAGE_BYTES / 1000,
      untilMs: random.magnitude(50, 3000),
      hotShare: random.pick([0.05, 0.3, 1]),
      sparseShare: random.pick([0, 0.5, 0.9, 1]),
      isDense: false,
    },
    downtimeMsMax: random.pick([20, 100, 300, 2000, 2000]),
    onStall: random.weighted<StallPolicy>([
      ["switchover", 80],
      ["throttle", 8],
      ["abort", 8],
      ["wait", 4],
    ]),
    postcopy: undefined,
    timeMsMax: rarely(0.03) ? random.magnitude(20, 3000) : undefined,
    wireBytesMax: rarely(0.03) ? random.magnitude(1000, 4 * ramBytes) : undefined,
    cacheBytes: random.pick([undefined, 0, (ramBytes * 2) / 3, ramBytes * 2, ramBytes * 2]),
    policy: random.int(0, POLICIES.length - 1),
    deltaCodec: random.weighted([
      [DELTA_CODEC_NAMES["word-mask"]!, 8],
      [DELTA_CODEC_NAMES.xbzrle!, 6],
      [DELTA_CODEC_NAMES.xbrle!, 6],
      [DELTA_CODEC_NAMES["zstd-dictionary"]!, 1],
    ]),
    entropyCodecs: random.weighted([
      [[ENTROPY_LZ4, ENTROPY_NONE], 16],
      [[ENTROPY_NONE], 4],
      [[ENTROPY_ZSTD, ENTROPY_LZ4, ENTROPY_NONE], 1],
    ]),
    baselineBytesMax: random.chance(0.03) ? 0 : 1 << 30,
    coderMsMax: random.pick([0, 0, 1, 8]),
    sourceCoderFailsAt: rarely(0.015) ? Math.round(random.magnitude(1, 40)) : undefined,
    destinationCoderFailsAt: rarely(0.015) ? Math.round(random.magnitude(1, 40)) : undefined,
    pacedBytesPerSecond: rarely(0.12) ? bytesPerSecond * random.magnitude(0.3, 2) : undefined,
    destinationSlots: random.pick([2, 3, 6]),
    toDestination: line(),
    toSource: line(),
    outgoing: {
      control: random.pick(["ack", "ack", "limit"]),
      saysSwitchover: random.chance(0.5),
      monitorMsMax: random.pick([1, 5, 40]),
      eventMsMax: random.pick([1, 10, 600]),
      deviceStateBytes: random.pick([17, 3000, 60_000, 60_000]),
      opaqueAfterPasses: rarely(0.08) ? random.pick([1, 1, 2, 5]) : undefined,
      sectionPages: random.pick([4, 16, 64]),
      isGuarded: mode === "direct" && random.chance(0.85),
      socket: socket(),
    },
    outgoingFaults: {
      refusesToBegin: rarely(0.01),
      cancel: random.weighted([
        ["works", 90],
        ["refused", 4],
        ["unanswered", 6],
      ]),
      statusFails: rarely(0.02),
      limitFails: rarely(0.03),
    },
    precopy: {
      callMsMax: random.pick([0, 1, 12]),
      batchPages: random.pick([4, 64]),
      deviceStateBytes: random.pick([17, 3000, 60_000]),
    },
    precopyFaults: { failsAtCall: rarely(0.08) ? Math.round(random.magnitude(1, 60)) : undefined },
    incoming: {
      saysWhy: random.chance(0.5),
      hasDescription: hypervisor === "qemu",
      monitorMsMax: random.pick([1, 5, 40]),
      eventMsMax: random.pick([1, 10, 100]),
      loadMsMax: random.pick([0, 0, 0.5, 3, 20]),
      socket: socket(),
    },
    incomingFaults: {
      refusesToBegin: rarely(0.01),
      failsAfterBytes: rarely(0.05) ? Math.round(random.magnitude(100, 3 * ramBytes)) : undefined,
      isMute: rarely(0.015),
      resume: random.weighted([
        ["works", 94],
        ["refused", 2],
        ["unanswered", 2],
        ["lost", 2],
      ]),
      discardFails: rarely(0.03),
    },
    staysPaused: rarely(0.03),
    resumption: random.chance(0.8)
      ? {
          sourceMs: random.pick([400, 5000, 60_000, 60_000]),
          destinationMs: random.pick([400, 5000, 60_000, 60_000]),
          switchoverMs: random.pick([undefined, undefined, 1500, 5000]),
        }
      : undefined,
    otherHypervisor: rarely(0.01),
    otherVersion: rarely(0.01),
    sourceDiskLines: rarely(0.05) ? Math.round(random.magnitude(1, 40)) : undefined,
    destinationDiskLines: rarely(0.03) ? random.int(1, 6) : undefined,
    faults: Array.from({ length: faultCount }, () => drawFault(random, mode, delayMs)),
  };
  if (mode === "tunnel" && random.chance(0.1)) makeOutage(plan, random);
  const later = new Random(seed ^ 0x90c0);
  const mayPostcopy = mode === "tunnel" && hypervisor === "qemu" && plan.guestRuns;
  if (mayPostcopy && later.chance(POSTCOPY_SHARE)) makePostcopy(plan, later);
  if (plan.faults.some(({ step }) => RESUMING_STEPS.includes(step))) {
    const fault = drawFault(random, mode, delayMs);
    plan.faults.push({ ...fault, fault: "connection lost", step: "source sends data" });
  }
  return plan;
}

/** A guest that never converges, and an operator who allows post-copy; what goes wrong does so around it. */
function makePostcopy(plan: Plan, random: Random): void {
  const { workload, toDestination, toSource, outgoing } = plan;
  workload.pageCount = random.int(8, 24);
  const ramBytes = workload.pageCount * PAGE_BYTES;
  const bytesPerSecond = ramBytes / random.real(0.5, 1);
  toDestination.bytesPerSecond = toSource.bytesPerSecond = bytesPerSecond;
  // Ten seconds and more must pass before anything happens: with few events in each.
  // And a guest that is larger than all buffers on the way.
  for (const line of [toDestination, toSource, outgoing.socket, plan.incoming.socket]) {
    line.pieceBytesMax = Math.max(8192, line.pieceBytesMax);
    line.systemBytesMax = Math.min(8192, line.systemBytesMax);
  }
  plan.pacedBytesPerSecond = undefined;
  workload.writesPerMs = 0.4;
  workload.untilMs = Number.MAX_SAFE_INTEGER;
  workload.hotShare = random.pick([0.3, 1]);
  workload.isDense = true;
  plan.downtimeMsMax = 20;
  plan.onStall = "postcopy";
  plan.timeMsMax = random.chance(0.05) ? random.real(11_000, 16_000) : undefined;
  plan.wireBytesMax = undefined;
  outgoing.opaqueAfterPasses = random.chance(0.02) ? random.int(1, 30) : undefined;
  outgoing.sectionPages = random.pick([1, 2, 4]);
  outgoing.deviceStateBytes = random.pick([17, 3000, 20_000]);
  plan.postcopy = {
    cancels: random.chance(0.3),
    isOpaque: random.chance(0.08),
    destinationHasIt: random.chance(0.98),
    vcpus: random.int(1, 3),
    packageNeeds: random.pick([0, 0, 1, 3]),
  };
  for (const fault of plan.faults) {
    if (!random.chance(0.85)) continue;
    fault.step = random.pick(POSTCOPY_STEPS);
    fault.count = random.pick([1, 1, 1, 1, 2, 5]);
    fault.delayMs = random.pick([
      0,
      0,
      0,
      random.real(0, 3),
      toDestination.delayMs,
      random.magnitude(1, 400),
    ]);
  }
}

/** Nothing is wrong but the link, which is away for a while: that is to cost this while and nothing else. */
function makeOutage(plan: Plan, random: Random): void {
  plan.onStall = "switchover";
  plan.timeMsMax = plan.wireBytesMax = undefined;
  plan.otherHypervisor = plan.otherVersion = false;
  plan.baselineBytesMax = 1 << 30;
  plan.sourceCoderFailsAt = plan.destinationCoderFailsAt = undefined;
  plan.outgoingFaults = { refusesToBegin: false, cancel: "works", statusFails: false, limitFails: false };
  plan.precopyFaults = { failsAtCall: undefined };
  plan.incomingFaults = {
    refusesToBegin: false,
    failsAfterBytes: undefined,
    isMute: false,
    resume: "works",
    discardFails: false,
  };
  plan.resumption = { sourceMs: 60_000, destinationMs: 60_000, switchoverMs: undefined };
  plan.faults = Array.from({ length: random.int(1, 2) }, () => ({
    ...drawFault(random, "tunnel", plan.toDestination.delayMs),
    fault: random.pick(["connection lost", "link away"] as const),
    ms: random.magnitude(5, 12_000),
    sourceNoticesMs: random.pick([0, 100, undefined]),
    destinationNoticesMs: random.pick([0, 100, undefined]),
    repeats: 0,
  }));
}

function drawFault(random: Random, mode: Plan["mode"], lineDelayMs: number): PlannedFault {
  const inTunnel = mode === "tunnel";
  const atStep = random.chance(0.75);
  const steps = inTunnel ? [...TUNNEL_STEPS, ...COMMON_STEPS, ...DESTINATION_STEPS] : COMMON_STEPS;
  const notices = () => (random.chance(0.12) ? undefined : random.pick([0, lineDelayMs, 200, 4000]));
  return {
    fault: random.weighted<Fault>([
      ["connection lost", 20],
      ["link away", inTunnel ? 14 : 0],
      ["stalled to destination", 6],
      ["stalled to source", 6],
      ["stalled for ever", 6],
      ["link slow", 4],
      ["source engine crashes", 12],
      ["destination engine crashes", inTunnel ? 12 : 0],
      ["source hypervisor crashes", 5],
      ["destination hypervisor crashes", 7],
      ["cancelled at source", 10],
      ["cancelled at destination", inTunnel ? 7 : 0],
      ["cancelled at the monitor", 5],
      ["source monitor lost", 5],
    ]),
    step: atStep ? random.pick(steps) : undefined,
    count: random.weighted([
      [1, 6],
      [random.int(1, 30), 4],
    ]),
    delayMs: atStep
      ? random.pick([0, 0, 0, random.real(0, 3), lineDelayMs / 2, lineDelayMs, 2 * lineDelayMs])
      : random.magnitude(1, 4000),
    ms: random.magnitude(5, 60_000),
    repeats: random.chance(0.3) ? random.int(1, 4) : 0,
    repeatsAfterMs: random.magnitude(0.5, 300),
    sourceNoticesMs: notices(),
    destinationNoticesMs: notices(),
  };
}
