// One of the two processes of the method "carried" (carried.ts): listens at one address and carries what comes there to
// another. Told both by a JSON object as its only argument; says a line when it listens, and ends with its connections.

import type { Socket } from "node:net";
import { type Address, connect, listen } from "../src/link/address.ts";
import { SocketChannel } from "../src/link/socket-channel.ts";
import { carry } from "./pipeline/carry.ts";

const CONNECT_TIMEOUT_MS = 10_000;

const { from, to } = JSON.parse(process.argv[2]!) as { from: Address; to: Address };
const onConnection = (socket: Socket) => void carryFrom(socket);
const listener = await listen(
  from,
  { onConnection, onError: fail },
  { connectionsMax: 1, pauseOnConnect: true },
);
console.log("listening");

async function carryFrom(socket: Socket): Promise<void> {
  try {
    carry(new SocketChannel(socket), new SocketChannel(await connect(to, CONNECT_TIMEOUT_MS)));
    await listener.close();
  } catch (thrown) {
    fail(thrown);
  }
}

function fail(thrown: unknown): never {
  console.error(thrown);
  process.exit(1);
}
