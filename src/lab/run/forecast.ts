// What `deltavee plan` says of a guest just before it is moved: the program samples it as it would any other, and its
// forecast of the method that follows stands in the record beside what came of it.

import * as v from "../../base/schema.ts";
import { withHeaders } from "../../planner/link-model.ts";
import { guestModelSchema, roundedModel } from "../../record/guest-model.ts";
import type { RecordEntry } from "../../record/schema.ts";
import { type CliRun, runCli } from "../host-process.ts";
import type { OpenedStage } from "./opened-stage.ts";
import type { RunPlan } from "./plan.ts";

const MIB = 1024 ** 2;
const interval = v.object({ low: v.number(), expected: v.number(), high: v.number() });
/** Of what `deltavee plan --json` prints, what a record has. */
const planSchema = v.object({
  guest: guestModelSchema,
  forecasts: v.strictTuple([
    v.object({
      method: v.string(),
      converges: v.picklist(["yes", "no", "unsure"]),
      ...{ totalMs: interval, downtimeMs: interval, wireBytes: interval },
    }),
  ]),
  reason: v.string(),
});

/** Long enough to see a guest come back to what it writes to in turn; on a busy machine all of it takes several times that. */
const SAMPLE_TIME = "6s";
const TIMEOUT_MS = 60_000;

/** @throws Error when what was forecast cannot be understood; whatever `signal` was aborted with: it has been ended then */
export type Forecast = (
  opened: Pick<OpenedStage, "source">,
  plan: RunPlan,
  signal: AbortSignal,
) => Promise<RecordEntry>;

/** A notice, where there is none. Takes some seconds. */
export const forecast: Forecast = forecastBy(runCli);

export function forecastBy(start: (words: readonly string[]) => Promise<CliRun>): Forecast {
  return async ({ source }, plan, signal) => {
    const { setting, downtimeMsMax } = plan;
    const { bytesPerSecond, roundTripMs, congestion } = setting.link;
    // What loses packets is slow for CUBIC, and next to nothing for BBR, which takes no loss for a full link.
    const lossShare = congestion === "bbr" ? 0 : setting.link.lossShare;
    const { name, cacheBytes } = plannedAs(setting.method, setting.guest.memoryMiB * MIB);
    const run = await start([
      ...["plan", "--qmp", source.toolQmp.path, "--pid", String(source.pid), "--json"],
      ...["--sample-time", SAMPLE_TIME],
      ...[
        "--link",
        `${Math.round(bytesPerSecond)}B/s`,
        "--rtt",
        `${roundTripMs}ms`,
        "--loss",
        String(lossShare),
      ],
      ...["--max-downtime", `${downtimeMsMax}ms`, "--methods", name],
      ...(cacheBytes === undefined ? [] : ["--cache-size", String(cacheBytes)]),
    ]);
    // It is on no test host, and not ended with them.
    const kill = () => run.kill("SIGKILL");
    const timer = setTimeout(kill, TIMEOUT_MS);
    signal.addEventListener("abort", kill, { once: true });
    if (signal.aborted) kill();
    const { code, signal: killedBy } = await run.exited;
    clearTimeout(timer);
    signal.removeEventListener("abort", kill);
    signal.throwIfAborted();
    if (code !== 0) return { type: "notice", message: `No forecast: ${run.stderrTail() || killedBy}` };
    const { guest, forecasts, reason } = v.parsed(planSchema, JSON.parse(run.stdout.lines[0]!.text));
    const { method, converges, totalMs, downtimeMs, wireBytes: payload } = forecasts[0];
    // What the lab counts on the link has headers.
    const wireBytes = withHeaders(payload);
    return {
      ...{ type: "forecast", method, converges, totalMs, downtimeMs, wireBytes, reason },
      ...{ linkBytesPerSecond: bytesPerSecond, roundTripMs },
      basis: {
        ...{ guest: roundedModel(guest), lossShare, downtimeMsMax },
        ...(cacheBytes === undefined ? {} : { cacheBytes }),
      },
    };
  };
}

/** The planner knows XBZRLE with any cache as one method. */
function plannedAs(method: string, memoryBytes: number): { name: string; cacheBytes?: number } {
  switch (method) {
    case "xbzrle-64m":
      return { name: "xbzrle-full", cacheBytes: 64 * MIB };
    case "xbzrle-tenth":
      return { name: "xbzrle-full", cacheBytes: Math.round(memoryBytes / 10) };
    default:
      return { name: method };
  }
}
