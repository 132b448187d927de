// A streaming server under pressure: ffmpeg sends a clip at its own pace to a viewer outside, while something else in
// the guest writes memory, or while it encodes the pictures itself.

import type { Scenario, ScenarioParameters, Stage } from "../model.ts";
import { numberOf, wordOf } from "../parameters.ts";
import { clientActivity } from "./client-activity.ts";

const PORT = 9000;
/** Where the writer tells how far it has come; nobody asks here. */
const WRITER_PORT = 9101;
const CLIP = "/lab/clip.ts";
/** Sent again and again: what is seen does not depend on its length. */
const CLIP_SECONDS = 20;
const CLIP_TIMEOUT_MS = 15 * 60_000;
/** A server in an emulated guest takes seconds to listen; the viewer's largest buffer must have been filled as well. */
const READY_TIMEOUT_MS = 60_000;
const AFTER_MS = 5000;

/** Buffers for which the frozen picture is told: from none to what a patient player keeps. */
const BUFFER_MS = [0, 100, 500, 1000, 2000] as const;
/** What VLC keeps of a stream from the network unless told otherwise. */
const VIEWER_BUFFER_MS = 1000;

/** Moving, with noise that no encoder can foresee; the same for the same parameters. */
function picturesOf(parameters: ScenarioParameters): string {
  const [width, height] = [
    numberOf(parameters, "width", { min: 16 }),
    numberOf(parameters, "height", { min: 16 }),
  ];
  return `-f lavfi -i testsrc2=size=${width}x${height}:rate=25,noise=alls=20:allf=t:all_seed=1`;
}

function encodingOf(parameters: ScenarioParameters): string {
  const kbit = numberOf(parameters, "kbitPerSecond", { min: 50 });
  const rate = `-b:v ${kbit}k -minrate ${kbit}k -maxrate ${kbit}k -bufsize ${kbit}k`;
  return `-c:v libx264 -preset ultrafast -tune zerolatency -threads 1 -g 50 -pix_fmt yuv420p ${rate}`;
}

async function warmUp({ guest }: Stage, parameters: ScenarioParameters): Promise<void> {
  const command = `ffmpeg -v error -y ${picturesOf(parameters)} -t ${CLIP_SECONDS} ${encodingOf(parameters)} ${CLIP}`;
  await guest.run(`${command} && sync`, CLIP_TIMEOUT_MS);
}

function dirtierOf(parameters: ScenarioParameters): string | undefined {
  const mebibytes = numberOf(parameters, "dirtyMiB", { min: 1 });
  switch (wordOf(parameters, "dirtier", ["none", "lmbench", "writer"])) {
    case "none":
      return undefined;
    case "lmbench":
      // Without these bw_mem spends its time on finding out how long to run, and under emulation never ends.
      return `ENOUGH=200000 TIMING_O=0 LOOP_O=0 bw_mem -W 0 -N 100000 ${mebibytes}M wr`;
    case "writer": {
      const pagesPerSecond = numberOf(parameters, "dirtyPagesPerSecond", { min: 1 });
      const bytesPerPage = numberOf(parameters, "bytesPerPage", { min: 1, max: 4096 });
      return `/lab/bin/writer ${WRITER_PORT} ${mebibytes} ${pagesPerSecond} ${bytesPerPage} random scattered`;
    }
  }
}

export const video: Scenario = {
  name: "video",
  title: "Streaming video",
  description:
    "A video stream to a viewer outside, from a server in which something else writes memory: without that it dirties " +
    "so little that every method will do.",
  guest: { memoryMiB: 1024, vcpus: 1 },
  smoke: {
    guest: { memoryMiB: 512, vcpus: 1 },
    parameters: { width: 320, height: 180, kbitPerSecond: 500, dirtyMiB: 16, dirtyPagesPerSecond: 500 },
  },
  parameters: {
    width: 640,
    height: 360,
    kbitPerSecond: 3000,
    /** copy: the clip as it lies there. encode: made while it is sent. */
    server: "copy",
    dirtier: "writer",
    dirtyMiB: 64,
    /** Of the writer alone. */
    dirtyPagesPerSecond: 8000,
    bytesPerPage: 64,
  },
  warmParameters: ["width", "height", "kbitPerSecond"],
  metrics: [
    ...BUFFER_MS.map((bufferMs) => ({
      name: `frozenMs${bufferMs}`,
      title: bufferMs === 0 ? "frozen picture" : `frozen picture, ${bufferMs / 1000} s buffered`,
      unit: "ms",
      isLowerBetter: true,
    })),
    {
      name: "rebufferings",
      title: `re-bufferings, ${VIEWER_BUFFER_MS / 1000} s buffered`,
      unit: "",
      isLowerBetter: true,
    },
    { name: "picturesLost", title: "pictures lost", unit: "", isLowerBetter: true },
    { name: "arrivalGapMs", title: "longest gap between pictures", unit: "ms", isLowerBetter: true },
    { name: "frozenMsBefore", title: "frozen picture before", unit: "ms", isLowerBetter: true },
  ],
  warmUp,
  async begin(stage, parameters) {
    const encodes = wordOf(parameters, "server", ["copy", "encode"]) === "encode";
    const source = encodes
      ? `-re ${picturesOf(parameters)} ${encodingOf(parameters)}`
      : `-re -stream_loop -1 -i ${CLIP} -c copy`;
    const dirtier = dirtierOf(parameters);
    if (dirtier !== undefined) await stage.guest.start(dirtier, "/tmp/dirtier.log");
    await stage.guest.start(
      `ffmpeg -v error ${source} -f mpegts 'tcp://0.0.0.0:${PORT}?listen=1'`,
      "/tmp/server.log",
    );
    const client = await stage.startClient("video", {
      host: stage.guestAddress,
      port: PORT,
      bufferMs: BUFFER_MS,
      viewerBufferMs: VIEWER_BUFFER_MS,
      connectTimeoutMs: READY_TIMEOUT_MS / 2,
    });
    await client.ready(READY_TIMEOUT_MS);
    return clientActivity(client, AFTER_MS);
  },
};
