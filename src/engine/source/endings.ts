// What is done with the source's hypervisor when a migration has failed: the guest is taken back, or left stopped since
// it may run elsewhere, or left in part. Which of these is right is decided by source.ts, not here.

import type { Clock } from "../../base/clock.ts";
import { toError, type VmWhere } from "../../base/errors.ts";
import type { RunRecord } from "../../record/writer.ts";
import { ReturnPathType } from "../../stream/format.ts";
import { returnPathMessage } from "../../stream/return-path.ts";
import type { Channel, OutgoingEnd, OutgoingVm } from "../ports.ts";

/** How long the hypervisor may take to say how the migration ended, once both sides have what they need. */
const END_TIMEOUT_MS = 30_000;

export interface FailedSource {
  vm: OutgoingVm;
  /** To the hypervisor; undefined: its migration never began. */
  channel: Channel | undefined;
  clock: Clock;
  record: RunRecord;
}

/** How the hypervisor says that its migration ended; undefined: it does not. */
export async function endOf({
  vm,
  clock,
}: Pick<FailedSource, "vm" | "clock">): Promise<OutgoingEnd | undefined> {
  return new Promise((resolve) => {
    const cancel = clock.after(END_TIMEOUT_MS, () => resolve(undefined));
    void vm.ended.then((end) => {
      cancel();
      resolve(end);
    });
  });
}

/** Nobody else has the guest. Cancels at the hypervisor and finds out whether the guest runs here again. */
export async function takeBack(source: FailedSource, postcopyAsked: boolean): Promise<VmWhere> {
  const { vm, channel, record } = source;
  try {
    await vm.cancel();
  } catch (thrown) {
    record.add({ type: "notice", message: `Cancel was not confirmed: ${toError(thrown).message}` });
    // QEMU does not cancel a post-copy. But told that all is well it completes, and can then be told to go on.
    if (postcopyAsked) await complete(source);
  }
  channel?.destroy();
  const end = channel === undefined ? undefined : await endOf(source);
  // It had its verdict, but COMMIT has not gone out: it will not resume by itself.
  const mayStand = end?.outcome === "completed" || (postcopyAsked && end !== undefined);
  if (mayStand && vm.wasRunning) {
    try {
      await vm.resume();
    } catch (thrown) {
      record.add({ type: "notice", message: `The guest was not resumed: ${toError(thrown).message}` });
    }
  }
  const running = await vm.isRunning();
  if (running === undefined) return "unknown";
  return running ? "running on source" : "paused on source";
}

/**
 * The guest may be running at the destination, all of it. A verdict of our own (`needsVerdict`) makes the hypervisor
 * here complete, paused, instead of resuming the guest when the connection closes: never both.
 */
export async function leaveStopped(source: FailedSource, needsVerdict: boolean): Promise<void> {
  await complete(source, needsVerdict);
  const running = await source.vm.isRunning();
  source.record.add({
    type: "notice",
    message: running
      ? "The hypervisor here has let the guest run on by itself: if it runs at the destination too, stop one."
      : "The destination may have the guest, so it is not resumed here.",
  });
}

/** Post-copy: both hypervisors keep what they have, and can go on with each other over another connection. */
export async function leaveInPart(source: FailedSource): Promise<void> {
  source.channel?.destroy();
  await endOf(source);
}

/** Of a hypervisor that was told to switch over to post-copy: whether it has. One that does not answer most likely has. */
export async function isInPostcopy({ vm, record }: FailedSource): Promise<boolean> {
  try {
    return (await vm.status()).isPostcopy === true;
  } catch (thrown) {
    const message = `The hypervisor does not say whether it is in post-copy: ${toError(thrown).message}`;
    record.add({ type: "notice", message });
    return true;
  }
}

/** It completes once it has got rid of what it has to say, and has its verdict. */
async function complete(source: FailedSource, needsVerdict = true): Promise<void> {
  if (needsVerdict) source.channel?.write(returnPathMessage(ReturnPathType.SHUT, 0));
  source.channel?.resume();
  await endOf(source);
}
