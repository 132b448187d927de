// Set "redis": heap of a redis-server whose keys are overwritten at random. The load is this file's own and not
// redis-benchmark's, which writes one and the same value under every key: pages of such a heap compress far
// better than any real one. Keys, lengths and contents of values are random here, the contents half hexadecimal
// tokens, half JSON.

import { execFileSync } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startProcess, tempFolder } from "../../test/support/processes.ts";
import type { PageSet } from "./page-set.ts";
import { changedPagesOf } from "./process-memory.ts";

const GAPS_MS = [500, 500, 500];
const KEYS = 200_000;
const VALUE_BYTES_MAX = 400;
const COMMANDS_PER_TURN = 40;
const TURN_MS = 5;
const START_TIMEOUT_MS = 10_000;
const WARM_UP_MS = 2_000;

/** Undefined, with the reason printed, where Redis is not installed. */
export async function redisHeap(): Promise<PageSet | undefined> {
  const version = redisVersion();
  if (version === undefined) {
    console.error("set redis is left out: no redis-server here (apt-get install redis-server)");
    return undefined;
  }
  const folder = tempFolder();
  const path = join(folder.path, "redis.sock");
  const quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", folder.path];
  const server = await startProcess("redis-server", ["--port", "0", "--unixsocket", path, ...quiet]);
  let load: NodeJS.Timeout | undefined;
  try {
    const socket = await connectWhenReady(path);
    // Answers are of no interest; an error shows as a closed connection.
    socket.resume();
    for (let key = 0; key < KEYS; key++) {
      if (!socket.write(setCommand(key))) await new Promise((resolve) => socket.once("drain", resolve));
    }
    load = setInterval(() => {
      if (socket.writableNeedDrain) return;
      socket.write(Array.from({ length: COMMANDS_PER_TURN }, () => setCommand(randomInt(KEYS))).join(""));
    }, TURN_MS);
    await sleep(WARM_UP_MS);
    const collector = await changedPagesOf(server.pid, GAPS_MS);
    socket.destroy();
    return {
      name: "redis",
      description: `heap of redis-server ${version}: ${KEYS} keys, random ones overwritten with random values of up to ${VALUE_BYTES_MAX} bytes; 0.5 s apart`,
      kind: "heap",
      ...collector.pages,
    };
  } finally {
    clearInterval(load);
    await server.stop();
    folder.remove();
  }
}

function redisVersion(): string | undefined {
  try {
    return /v=(\S+)/.exec(execFileSync("redis-server", ["--version"], { encoding: "utf8" }))?.[1];
  } catch {
    return undefined;
  }
}

function setCommand(key: number): string {
  const name = `session:${key}`;
  const value = randomValue();
  return `*3\r\n$3\r\nSET\r\n$${name.length}\r\n${name}\r\n$${value.length}\r\n${value}\r\n`;
}

function randomValue(): string {
  const token = randomBytes(8 + randomInt(VALUE_BYTES_MAX / 2 - 8)).toString("hex");
  if (randomInt(2) === 0) return token;
  const user = randomInt(1_000_000);
  return JSON.stringify({
    user,
    seenAt: Date.now() - randomInt(1_000_000),
    visits: randomInt(1000),
    mail: `user${user}@example.org`,
    token: token.slice(0, 32),
  });
}

async function connectWhenReady(path: string): Promise<Socket> {
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const socket = connect(path);
    try {
      await new Promise((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", reject);
      });
      return socket;
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw thrown;
      await sleep(20);
    }
  }
}
