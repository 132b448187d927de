// On the client host: brings connections to a unix socket, which every process of this machine can reach, to a port of
// the guest, which only the client host can.

import { connect, createServer } from "node:net";
import * as v from "../../base/schema.ts";
import { runClient } from "./protocol.ts";

const optionsSchema = v.object({ path: v.string(), host: v.string(), port: v.number() });

await runClient(async (lab) => {
  const { path, host, port } = v.parsed(optionsSchema, lab.options);
  const server = createServer((near) => {
    const far = connect(port, host);
    near.pipe(far).pipe(near);
    // Whichever side ends or breaks, the other hears of it; the guest's not being there yet is one of these.
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  lab.ready();
  await lab.finishing;
  return { metrics: {}, failures: [], series: [] };
});
