// One TCP connection, made in time or not at all.

import { connect, type Socket } from "node:net";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export function connectOnce({ host, port }: Address, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    const refuse = (error: Error) => {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () =>
        refuse(new Error(`Nobody at ${host}:${port} took a connection within ${Math.round(timeoutMs)} ms`)),
      timeoutMs,
    );
    socket.once("error", refuse);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeListener("error", refuse);
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

const RETRY_MS = 200;

/** Tries again as long as nobody listens: a server takes some time until it does. */
export async function connectInTime(address: Address, timeoutMs: number): Promise<Socket> {
  const giveUpMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await connectOnce(address, giveUpMs - performance.now());
    } catch (thrown) {
      if (performance.now() + RETRY_MS >= giveUpMs) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
