// Are the engines' claims true? What each says of the VM against what the hypervisors know, once nothing happens any
// more; whether a guest was given up that need not have been; whether the records can be read.

import { toError, type VmWhere } from "../../src/base/errors.ts";
import { RecordReader } from "../../src/record/reader.ts";
import type { RecordEvent } from "../../src/record/schema.ts";
import type { SimOutgoing } from "./sim-outgoing.ts";
import type { Simulation } from "./simulation.ts";

/** A DATA frame, what stands beside it, and a region of the hypervisor's: more must never wait in a program. */
const WAITING_BYTES_MAX = 4.5 * 1024 * 1024;
/** Reading a record back takes longer than writing it: every so many seeds. */
const RECORDS_EVERY = 8;

export function judgeOutcome(simulation: Simulation): void {
  const { world, plan, sourceOutcome, destinationOutcome } = simulation;
  const violated = (rule: string) => world.violated(rule);
  const { presence, crashedHypervisors } = world;

  // ---- the guest exists, and runs unless somebody says that it does not ----
  const isThere = whereIsAllOfIt(simulation);
  if (!isThere && crashedHypervisors.size === 0) violated("the guest is lost");
  const runs = presence.source === "running" || presence.destination === "running";
  if (!plan.guestRuns && runs) violated("a paused guest was started");

  // ---- the source's claim ----
  if (sourceOutcome !== undefined) {
    const { outcome, vm, error } = sourceOutcome;
    if ((outcome === "completed") !== (error === undefined)) violated("an outcome without its error");
    if (error?.code === "INTERNAL") violated(`internal error at the source: ${error.message}`);
    if (outcome === "cancelled" && error?.code !== "CANCELLED") violated("cancelled with another code");
    judgeClaim(simulation, "source", vm);
    const sourceWasGone = crashedHypervisors.has("source");
    const unreachable = sourceWasGone || simulation.outgoing?.isReachable === false;
    // What may run at the destination: COMMIT was sent, or a stock destination may have got all of it.
    const givenAway =
      plan.mode === "tunnel" ? simulation.commitSent : mayHaveAll(simulation.outgoing!, world.stoppedRam);
    if (vm === "unknown" && !unreachable && !givenAway)
      violated("the source does not know where a guest is that it never gave away");
    const couldNotResume = plan.precopyFaults.failsAtCall !== undefined && plan.hypervisor === "precopy";
    const stayed = outcome !== "completed" && !givenAway && !unreachable;
    if (stayed && plan.guestRuns && presence.source !== "running" && !couldNotResume)
      violated("a guest that could have gone on at the source does not");
  }

  // ---- the destination's claim ----
  if (destinationOutcome !== undefined) {
    const { outcome, vm, error } = destinationOutcome;
    if ((outcome === "completed") !== (error === undefined)) violated("an outcome without its error");
    if (error?.code === "INTERNAL") violated(`internal error at the destination: ${error.message}`);
    judgeClaim(simulation, "destination", vm);
    if (vm === "unknown" && plan.incomingFaults.resume === "works" && !crashedHypervisors.has("destination"))
      violated("the destination does not know where the guest is");
  }

  judgePostcopy(simulation);

  // ---- nothing went wrong: it must have gone well ----
  if (isPlain(simulation) && sourceOutcome?.outcome !== "completed")
    violated(`nothing went wrong, and the migration ${sourceOutcome?.outcome}`);
  if (mustResume(simulation)) {
    simulation.steps.add("an outage that costs nothing but time");
    if (sourceOutcome?.outcome !== "completed")
      violated(`the link was away for a while, and the migration ${sourceOutcome?.outcome}`);
  }
  const isCopy = presence.destination === "paused" || simulation.incoming.postcopyGuest !== undefined;
  if (isCopy && presence.destination !== "gone" && crashedHypervisors.size === 0) simulation.compareRam();

  for (const end of [...simulation.links, simulation.incomingChannel]) {
    if ((end?.waitingBytesMax ?? 0) > WAITING_BYTES_MAX) violated("an unbounded queue");
  }
  judgeRecords(simulation);
}

/** Whether all of the guest is somewhere, be it in two parts that can go on with each other. */
function whereIsAllOfIt({ world, incoming, outgoing, steps }: Simulation): boolean {
  const has = (place: "source" | "destination") =>
    world.presence[place] === "running" || world.presence[place] === "paused";
  const isPart = incoming.postcopyGuest !== undefined && incoming.loader?.complete !== true;
  if (has("destination") && !isPart) return true;
  // What has not run elsewhere is the newest.
  if (has("source") && !(isPart && steps.has("destination runs the guest"))) return true;
  const keepsItsPart = outgoing?.state !== "completed" && outgoing?.state !== "cancelled";
  return has("source") && has("destination") && keepsItsPart;
}

/** Whoever says that it is over has seen to it that nothing is missing; whoever does not says that it is in part. */
function judgePostcopy(simulation: Simulation): void {
  const { world, plan, incoming, outgoing, commitSent, sourceOutcome, destinationOutcome } = simulation;
  if (plan.postcopy === undefined || outgoing?.isPostcopy !== true) return;
  const isWhole = incoming.loader?.complete === true;
  const outcomes = [sourceOutcome, destinationOutcome].filter((outcome) => outcome !== undefined);
  for (const { outcome } of outcomes) {
    if (outcome === "completed" && !isWhole) world.violated("completed, and a part of the guest is missing");
  }
  const isSplit = commitSent && !isWhole;
  if (isSplit && sourceOutcome !== undefined && sourceOutcome.error?.code !== "POSTCOPY_INTERRUPTED")
    world.violated("a guest in two parts, and the source does not say so");
  const isRunning =
    incoming.postcopyGuest !== undefined && simulation.steps.has("destination runs the guest");
  if (
    isSplit &&
    isRunning &&
    destinationOutcome !== undefined &&
    destinationOutcome.error?.code !== "POSTCOPY_INTERRUPTED"
  )
    world.violated("a guest in two parts, and the destination does not say so");
  const isAgreed = sourceOutcome?.outcome === "completed" && destinationOutcome?.outcome === "completed";
  const asked = incoming.postcopyGuest?.requests ?? 0;
  if (isAgreed && asked !== outgoing.requests)
    world.violated(`${asked} pages were asked for, and ${outgoing.requests} requests came`);
}

/** What is claimed must be so, as long as the hypervisor that it is about has lived on. */
function judgeClaim(simulation: Simulation, by: "source" | "destination", claim: VmWhere): void {
  const { world, plan } = simulation;
  const { presence, crashedHypervisors } = world;
  const about = claim.endsWith("source") ? "source" : "destination";
  if (claim === "unknown" || crashedHypervisors.has(about)) return;
  const actual = presence[about];
  const wanted = claim !== "paused on source" && claim !== "paused on destination" ? "running" : "paused";
  if (actual === wanted) return;
  // The destination cannot know more of the source than that it keeps the guest.
  if (by === "destination" && about === "source") {
    const sourceIsInTrouble =
      simulation.outgoing?.isReachable === false ||
      plan.hypervisor === "precopy" ||
      !plan.guestRuns ||
      !simulation.sourceProcess.alive;
    if (actual === "paused" && sourceIsInTrouble) return;
  }
  // A person who wants it to stay paused at the destination has not told the source.
  if (by === "source" && about === "destination" && plan.staysPaused && actual === "paused") return;
  world.violated(`the ${by} says "${claim}", and there it is ${actual}`);
}

/** In a stream that nobody understands, all that is known is whether the guest was stopped. */
function mayHaveAll({ deviceStateIsOut, isOpaque }: SimOutgoing, stoppedRam: Buffer | undefined): boolean {
  return deviceStateIsOut || (isOpaque && stoppedRam !== undefined);
}

/** Longer outages may be too long for somebody. */
const SHORT_OUTAGE_MS = 15_000;
const PATIENT_MS = 60_000;

/** The connection was lost, once both sides had agreed to resume it, and could be had again well within the limits. */
function mustResume(simulation: Simulation): boolean {
  const { plan, fired, sourceProcess, destinationProcess } = simulation;
  const { resumption, mode } = plan;
  if (mode === "direct" || resumption === undefined || resumption.switchoverMs !== undefined) return false;
  if (Math.min(resumption.sourceMs, resumption.destinationMs) < PATIENT_MS) return false;
  if (fired.length === 0 || !sourceProcess.alive || !destinationProcess.alive) return false;
  return (
    isSound(simulation) &&
    fired.every(
      ({ fault, phase, ms, repeats, sourceNoticesMs, destinationNoticesMs }) =>
        (fault === "connection lost" || (fault === "link away" && ms < SHORT_OUTAGE_MS)) &&
        phase !== "setup" &&
        (repeats === 0 || (sourceNoticesMs !== undefined && destinationNoticesMs !== undefined)),
    )
  );
}

function isPlain(simulation: Simulation): boolean {
  return simulation.plan.faults.length === 0 && simulation.fired.length === 0 && isSound(simulation);
}

/** Nothing is broken from the start. */
function isSound({ plan }: Simulation): boolean {
  const { outgoingFaults, incomingFaults, precopyFaults } = plan;
  return (
    !plan.otherHypervisor &&
    !plan.otherVersion &&
    (plan.onStall === "switchover" ||
      (plan.postcopy?.destinationHasIt === true && plan.outgoing.opaqueAfterPasses === undefined)) &&
    plan.timeMsMax === undefined &&
    plan.wireBytesMax === undefined &&
    plan.sourceCoderFailsAt === undefined &&
    plan.destinationCoderFailsAt === undefined &&
    (plan.baselineBytesMax > 0 || plan.mode === "direct") &&
    !outgoingFaults.refusesToBegin &&
    !outgoingFaults.statusFails &&
    !outgoingFaults.limitFails &&
    precopyFaults.failsAtCall === undefined &&
    !incomingFaults.refusesToBegin &&
    incomingFaults.failsAfterBytes === undefined &&
    !incomingFaults.isMute &&
    incomingFaults.resume === "works"
  );
}

function judgeRecords(simulation: Simulation): void {
  const { plan, world, sourceEvents, destinationEvents, sourceOutcome } = simulation;
  for (const events of [sourceEvents, destinationEvents]) {
    for (const event of events) {
      if (event.type === "notice" && event.message.startsWith("Events "))
        world.violated(`a record with a hole: ${event.message}`);
    }
  }
  if (sourceOutcome !== undefined) {
    const last = sourceEvents.at(-1);
    if (last?.type !== "summary" || last.vm !== sourceOutcome.vm || last.outcome !== sourceOutcome.outcome)
      world.violated("the source's record does not end as the migration did");
    judgePhases(simulation, sourceEvents);
  }
  if (plan.seed % RECORDS_EVERY !== 0) return;
  for (const lines of [simulation.sourceLines, simulation.destinationLines]) {
    if (lines.length === 0) continue;
    try {
      const reader = new RecordReader("simulated");
      reader.push(lines.join(""));
      reader.end();
    } catch (thrown) {
      world.violated(`a record that cannot be read: ${toError(thrown).message}`);
    }
  }
}

/** `committed` comes at most once, and nothing is cancelled after it. */
function judgePhases({ world }: Simulation, events: readonly RecordEvent[]): void {
  const phases = events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
  const committed = phases.indexOf("committed");
  if (committed !== -1 && phases.indexOf("cancelled", committed) !== -1)
    world.violated("cancelled after committed");
  if (new Set(phases).size !== phases.length) world.violated(`a phase came twice: ${phases.join(" ")}`);
}
