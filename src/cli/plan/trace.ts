// A guest model from a page trace in a file.

import { makeHome } from "../../library/engine-parts.ts";
import type { GuestModel } from "../../planner/guest-model.ts";
import { PageMeter } from "../../planner/page-meter.ts";
import { TraceModelBuilder } from "../../planner/trace-model.ts";
import { readTrace } from "../../trace/file.ts";

/** @throws DeltaveeError TRACE_INVALID, also of a trace that ends before it says anything of what changes */
export async function modelFromTrace(path: string): Promise<GuestModel> {
  const { memory, kernel, clock } = makeHome();
  const builder = new TraceModelBuilder(
    path,
    (pageBytes) => new PageMeter(memory, kernel, pageBytes, () => clock.nowMs()),
  );
  const notice = await readTrace(path, builder);
  if (notice !== undefined) process.stderr.write(`Note: ${notice}\n`);
  return builder.model();
}
