// On the client host: receives the guest's heartbeat (lab/guest/heartbeat.c has its format) and tells how long the guest
// was not heard of around its move, how many beats were lost, and how much slower it ran while it was being moved.

import { createSocket } from "node:dgram";
import * as v from "../../base/schema.ts";
import { BeatLog, type BeatTimes } from "./beat-log.ts";
import { epochNowMs, runClient } from "./protocol.ts";

const optionsSchema = v.object({ port: v.number() });
/** It is steady after so many. */
const READY_BEATS = 50;

await runClient(async (lab) => {
  const { port } = v.parsed(optionsSchema, lab.options);
  const beats = new BeatLog();
  const socket = createSocket({ type: "udp4", recvBufferSize: 4 * 1024 * 1024 });
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(port, resolve);
  });
  socket.on("message", (datagram) => {
    beats.add(datagram, epochNowMs());
    if (beats.count === READY_BEATS) lab.ready();
  });
  await lab.finishing;
  socket.close();
  const times: BeatTimes = {
    beganMs: lab.migrationBeganMs ?? epochNowMs(),
    endedMs: lab.migrationEndedMs ?? epochNowMs(),
    finishedMs: epochNowMs(),
  };
  return beats.view(times);
});
