// Which process it was: a process id is used again, by another process, sooner or later. With the time of its start
// and the boot of the machine it is not. Linux' /proc; elsewhere the id alone has to do.

import { readFileSync } from "node:fs";
import * as v from "../base/schema.ts";

export const processIdentitySchema = v.object({
  pid: v.pipe(v.integer(), v.gtValue(0)),
  /** Clock ticks from boot to its start (proc_pid_stat(5), field 22), and which boot. */
  startTicks: v.optional(v.pipe(v.integer(), v.minValue(0))),
  bootId: v.optional(v.string()),
});
export type ProcessIdentity = v.InferOutput<typeof processIdentitySchema>;

export function ownIdentity(): ProcessIdentity {
  const [startTicks, bootId] = [startTicksOf(process.pid), readBootId()];
  return {
    pid: process.pid,
    ...(startTicks === undefined ? {} : { startTicks }),
    ...(bootId === undefined ? {} : { bootId }),
  };
}

/** Whether that very process lives. */
export function isAlive({ pid, startTicks, bootId }: ProcessIdentity): boolean {
  if (bootId !== undefined && readBootId() !== bootId) return false;
  if (startTicks !== undefined) return startTicksOf(pid) === startTicks;
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // Somebody else's, which is alive too.
    return thrown instanceof Error && "code" in thrown && thrown.code === "EPERM";
  }
}

/** Undefined: there is no such process (or it is a zombie, which does nothing any more), or no /proc. */
function startTicksOf(pid: number): number | undefined {
  const stat = readOrUndefined(`/proc/${pid}/stat`);
  // The second field is the program's name in parentheses and may hold anything; fields are counted behind it.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ") ?? [];
  const [state, ticks] = [fields[0], Number(fields[19])];
  return state === undefined || state === "Z" || !Number.isSafeInteger(ticks) ? undefined : ticks;
}

function readBootId(): string | undefined {
  return readOrUndefined("/proc/sys/kernel/random/boot_id")?.trim();
}

function readOrUndefined(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // Not there: the process is gone, or this is no Linux. Either is an answer.
    return undefined;
  }
}
