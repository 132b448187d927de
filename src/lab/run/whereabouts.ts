// Where the guest is when a migration is over: at the destination and nowhere else, and it answers; or, where the
// migration did not end, at the source.

import type { VmWhere } from "../../base/errors.ts";
import { toError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type { OpenedStage, StageVm } from "./opened-stage.ts";

/** A guest that was slow to begin with, over a connection that has backed off meanwhile. */
const ANSWER_TIMEOUT_MS = 20_000;

export interface Whereabouts {
  readonly vm: VmWhere;
  /** Why that is not where it should be, in words. */
  readonly failures: readonly string[];
}

export async function findGuest(opened: OpenedStage, arrived: boolean): Promise<Whereabouts> {
  const runs = { source: await doesRun(opened.source), destination: await doesRun(opened.destination) };
  const [at, notAt] = arrived ? (["destination", "source"] as const) : (["source", "destination"] as const);
  const failures: string[] = [];
  if (!runs[at]) failures.push(`the guest does not run at the ${at}`);
  if (runs[notAt]) failures.push(`the guest runs at the ${notAt}${runs[at] ? " as well" : ""}`);
  if (runs[at]) {
    await opened.stage.guest.run("true", ANSWER_TIMEOUT_MS).catch((thrown: unknown) => {
      const why = toError(thrown).message;
      failures.push(`the guest does not answer within ${formatMs(ANSWER_TIMEOUT_MS)}: ${why}`);
    });
  }
  // Somewhere and nowhere else is known, also where it should not be.
  const [where, ...others] = (["source", "destination"] as const).filter((side) => runs[side]);
  const vm = where !== undefined && others.length === 0 ? (`running on ${where}` as const) : "unknown";
  return { vm, failures };
}

/** A QEMU that does not answer runs nothing, as far as can be told: one that has failed to load a guest has ended. */
async function doesRun({ qmp }: StageVm): Promise<boolean> {
  try {
    return (await qmp.execute("query-status")).running;
  } catch {
    return false;
  }
}
