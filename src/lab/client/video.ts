// Client program: watches a video stream and tells what players with buffers of several sizes would have shown of it.

import { toError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import type { ClientView } from "../model.ts";
import { connectInTime } from "./connect.ts";
import { thinned } from "./phases.ts";
import { countLost, longestGapMs, playBack, STALL_MS_MIN, untilNow } from "./playback.ts";
import { epochNowMs, type Lab, runClient } from "./protocol.ts";
import { type Picture, TransportStreamParser } from "./transport-stream.ts";

const optionsSchema = v.object({
  host: v.string(),
  port: v.number(),
  /** The metric `frozenMs…` is made for each of them. */
  bufferMs: v.pipe(v.array(v.number()), v.minLength(1)),
  /** A viewer who has so much buffer takes no freezing for granted. */
  viewerBufferMs: v.number(),
  /** The server listens some seconds after it has been started. */
  connectTimeoutMs: v.number(),
});

type Options = v.InferOutput<typeof optionsSchema>;

/** Two hours at 60 per second: who watches longer has forgotten to look away. */
const PICTURES_MAX = 432_000;
/** Steady is a stream of which so much has come: the player with the largest buffer has begun to show it. */
const STEADY_MS = 3000;
/** A stream that brings no picture for so long when all ends is not there any more. */
const SILENCE_MS_MAX = 1000;

async function watch(lab: Lab): Promise<ClientView> {
  const options = v.parsed(optionsSchema, lab.options);
  const socket = await connectInTime(options, options.connectTimeoutMs);
  const pictures: Picture[] = [];
  let isReady = false;
  const parser = new TransportStreamParser((picture) => {
    if (pictures.length < PICTURES_MAX) pictures.push(picture);
    if (!isReady && picture.arrivedMs - pictures[0]!.arrivedMs >= STEADY_MS) {
      isReady = true;
      lab.ready();
    }
  });
  let broken: string | undefined;
  const ended = new Promise<void>((resolve) => {
    const end = (reason: string) => {
      broken ??= reason;
      socket.destroy();
      resolve();
    };
    socket.on("data", (chunk) => {
      try {
        parser.push(chunk, epochNowMs());
      } catch (thrown) {
        end(toError(thrown).message);
      }
    });
    socket.on("error", (error) => end(error.message));
    socket.on("close", () => end("The server ended it"));
  });
  await Promise.race([ended, lab.finishing]);
  if (!isReady) throw new Error(`The stream never became steady: ${broken ?? "too little came"}`);
  await lab.finishing;
  const brokenBecause = broken;
  socket.destroy();
  return viewOf(pictures, parser.packetsLost, brokenBecause, lab, options);
}

function viewOf(
  pictures: readonly Picture[],
  packetsLost: number,
  brokenBecause: string | undefined,
  lab: Lab,
  { bufferMs, viewerBufferMs }: Options,
): ClientView {
  const nowMs = epochNowMs();
  const interval = { fromMs: lab.migrationBeganMs ?? pictures[0]!.arrivedMs, untilMs: nowMs };
  const before = { fromMs: pictures[0]!.arrivedMs, untilMs: interval.fromMs };
  // A stream that broke, or of which nothing comes any more, shows its last picture from then on.
  const silentMs = nowMs - pictures.at(-1)!.arrivedMs;
  const isSilent = silentMs > SILENCE_MS_MAX;
  const shown = brokenBecause !== undefined || isSilent ? untilNow(pictures, nowMs) : pictures;

  const metrics: Record<string, number> = {};
  for (const ms of bufferMs) metrics[`frozenMs${ms}`] = playBack(shown, ms, interval).frozenMs;
  const viewer = playBack(shown, viewerBufferMs, interval);
  const lost = countLost(pictures);
  metrics.rebufferings = viewer.stalls;
  metrics.picturesLost = lost;
  metrics.frozenMsBefore = playBack(pictures, 0, before).frozenMs;
  const gapMs = longestGapMs(shown, interval);
  if (gapMs !== undefined) metrics.arrivalGapMs = gapMs;

  const failures: string[] = [];
  if (brokenBecause !== undefined) failures.push(`the stream broke: ${brokenBecause}`);
  else if (isSilent) failures.push(`no picture in the last ${Math.round(silentMs)} ms`);
  if (viewer.frozenMs >= STALL_MS_MIN) {
    // Rounded up: what a viewer saw stand still is not to be called 0.0 s.
    const [frozen, buffer] = [viewer.frozenMs, viewerBufferMs].map((ms) =>
      (Math.ceil(ms / 100) / 10).toFixed(1),
    );
    failures.push(`picture frozen for ${frozen} s with ${buffer} s of buffer`);
  }
  if (lost > 0) failures.push(`${lost} pictures lost`);
  if (packetsLost > 0) failures.push(`${packetsLost} packets of the stream lost`);

  const firstDelayMs = pictures[0]!.arrivedMs - pictures[0]!.presentationMs;
  const delays = shown.map(({ presentationMs, arrivedMs }) => ({
    epochMs: arrivedMs,
    value: arrivedMs - presentationMs - firstDelayMs,
  }));
  return {
    metrics,
    failures,
    series: [
      { name: "delay of the picture", unit: "ms", points: thinned(delays, (values) => Math.max(...values)) },
    ],
  };
}

await runClient(watch);
