// The link of a benchmark as hosts have it: TCP, plain or with TLS, set up as `deltavee migrate` and `receive` do it.

import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type Address, connect, listen } from "../../src/link/address.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { readTlsFolder } from "../../src/link/tls/identity.ts";
import { secureClient, secureServer } from "../../src/link/tls/secure.ts";

export interface TcpLink {
  port: number;
  /** Certificates for 127.0.0.1; absent: plain text. */
  tlsFolder?: string;
}

const HOST = "127.0.0.1";
const TIMEOUT_MS = 20_000;
const AGAIN_MS = 20;

/** Tries until somebody listens there. */
export async function connectLink(link: TcpLink): Promise<SocketChannel> {
  const deadlineMs = performance.now() + TIMEOUT_MS;
  for (;;) {
    try {
      const socket = await connect(addressOf(link), TIMEOUT_MS);
      if (link.tlsFolder === undefined) return new SocketChannel(socket);
      const identity = readTlsFolder(link.tlsFolder, "client");
      return new SocketChannel((await secureClient(socket, identity, HOST, TIMEOUT_MS)).socket);
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw thrown;
    }
    await sleep(AGAIN_MS);
  }
}

/** The first that connects. */
export async function acceptLink(link: TcpLink): Promise<SocketChannel> {
  const socket = await new Promise<Socket>((resolve, reject) => {
    const onConnection = (accepted: Socket) => {
      resolve(accepted);
      void listener.then(({ close }) => close());
    };
    const options = { connectionsMax: 1, pauseOnConnect: true };
    const listener = listen(addressOf(link), { onConnection, onError: reject }, options);
    listener.catch(reject);
  });
  if (link.tlsFolder === undefined) return new SocketChannel(socket);
  const connection = await secureServer(socket, readTlsFolder(link.tlsFolder, "server"), TIMEOUT_MS);
  if ("why" in connection)
    throw new Error(`The certificate of a benchmark is not accepted: ${connection.why}`);
  return new SocketChannel(connection.socket);
}

function addressOf({ port }: TcpLink): Address {
  return { kind: "tcp", host: HOST, port };
}
