// Processes, ports and folders on this host (Linux), for the lab, tests and benchmarks. A process started here never
// outlives this one, not even when this one is killed: the kernel sees to it (prctl PR_SET_PDEATHSIG, by util-linux' setpriv).

import { execFileSync, spawn } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { PACKAGE_ROOT } from "../base/package-root.ts";
import { LineLog } from "./line-log.ts";

const STDERR_CHARACTERS_MAX = 16 * 1024;
const STOP_GRACE_MS = 5_000;
/** Linux counts CPU time for user space in 1/100 s on every architecture (USER_HZ). */
const CPU_TICKS_PER_SECOND = 100;
/** Above those of services. */
const PORT_MIN = 10_000;
/** net.ipv4.ip_local_port_range, as Linux has it. */
const EPHEMERAL_PORT_MIN = 32_768;
const PORT_ATTEMPTS_MAX = 100;

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface StartOptions {
  /** Name of a network namespace to run in (`ip netns exec`; needs root). */
  netns?: string;
  env?: NodeJS.ProcessEnv;
  onStdout?: (chunk: Buffer) => void;
  onStderr?: (chunk: Buffer) => void;
}

export interface Subprocess {
  readonly pid: number;
  readonly stdin: Writable;
  /** Resolves when it has ended and its output has been read. Never rejects. */
  readonly exited: Promise<Exit>;
  /** The last of what it wrote to stderr. */
  stderrTail(): string;
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL for one that does not hear it. Idempotent. */
  stop(): Promise<Exit>;
}

/** Resolves when the process runs. A command that does not exist shows as an exit with code 127. */
export async function startProcess(
  command: string,
  commandArguments: readonly string[],
  { netns, env, onStdout, onStderr }: StartOptions = {},
): Promise<Subprocess> {
  const prefix = netns === undefined ? [] : ["ip", "netns", "exec", netns];
  const pipe = openPipe();
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", ...prefix, command, ...commandArguments], {
    stdio: ["pipe", pipe.writeFd, "pipe"],
    env: env ?? process.env,
  });
  closeSync(pipe.writeFd);
  const stdout = new Socket({ fd: pipe.readFd, readable: true, writable: false });
  const [stdin, stderrPipe] = [child.stdin!, child.stderr!];
  let stderr = "";
  stdout.on("data", (chunk: Buffer) => onStdout?.(chunk));
  stderrPipe.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-STDERR_CHARACTERS_MAX);
    onStderr?.(chunk);
  });
  // Writing to a process that has just ended is no error of ours: its exit tells what happened.
  stdin.on("error", () => {});
  const stdoutRead = new Promise((resolve) => stdout.once("close", resolve));
  const exited = new Promise<Exit>((resolve) => {
    child.once("close", (code, signal) => void stdoutRead.then(() => resolve({ code, signal })));
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", reject);
  });
  // Once it runs, "error" means only that a signal could not be delivered.
  child.on("error", () => {});
  return {
    pid: child.pid!,
    stdin,
    exited,
    stderrTail: () => stderr.trimEnd(),
    kill: (signal) => {
      child.kill(signal);
    },
    stop: async () => {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_GRACE_MS);
      try {
        return await exited;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/**
 * For a child's stdout. Node itself would take a pair of sockets, in which each single byte that a serial line
 * writes takes up a packet: 278 of them, some 0.1 s of a guest's words, and the next are lost when this process
 * has not read in time. A pipe holds 64 KiB however they were written.
 */
function openPipe(): { readFd: number; writeFd: number } {
  const folder = tempFolder();
  const path = join(folder.path, "pipe");
  execFileSync("mkfifo", [path]);
  const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writeFd = openSync(path, constants.O_WRONLY);
  folder.remove();
  return { readFd, writeFd };
}

export interface CliRun extends Subprocess {
  readonly stdout: LineLog;
  readonly stderr: LineLog;
}

/** Starts the built command-line program: `npm run build` must have been run. */
export async function runCli(
  commandArguments: readonly string[],
  options: Pick<StartOptions, "netns" | "env"> = {},
): Promise<CliRun> {
  const main = join(PACKAGE_ROOT, "dist/cli/main.js");
  const stdout = new LineLog();
  const stderr = new LineLog();
  const cli = await startProcess(process.execPath, [main, ...commandArguments], {
    ...options,
    onStdout: (chunk) => stdout.push(chunk),
    onStderr: (chunk) => stderr.push(chunk),
  });
  void cli.exited.then(({ code, signal }) => {
    const reason = new Error(
      `deltavee ${commandArguments[0] ?? ""} ended (code ${code}, signal ${signal}): ${cli.stderrTail()}`,
    );
    stdout.end(reason);
    stderr.end(reason);
  });
  return { ...cli, stdout, stderr };
}

/**
 * CPU time that a process has used so far, all threads, user and system; or one of its threads.
 * @throws Error once it has ended
 */
export function cpuSeconds(pid: number, threadId?: number): number {
  const folder = threadId === undefined ? `/proc/${pid}` : `/proc/${pid}/task/${threadId}`;
  const stat = readFileSync(`${folder}/stat`, "latin1");
  // The second field is the program's name in parentheses and may hold anything; fields are counted behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [userTicks, systemTicks] = [Number(fields[11]), Number(fields[12])];
  return (userTicks + systemTicks) / CPU_TICKS_PER_SECOND;
}

/**
 * A TCP port that was free on 127.0.0.1 a moment ago: use it soon. None of those that Linux gives to whoever connects or
 * listens without asking for one, which are soon somebody's.
 * @throws Error when none of many tried is free
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < PORT_ATTEMPTS_MAX; attempt++) {
    const port = PORT_MIN + Math.floor(Math.random() * (EPHEMERAL_PORT_MIN - PORT_MIN));
    if (await isFree(port)) return port;
  }
  throw new Error(`None of ${PORT_ATTEMPTS_MAX} TCP ports is free`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

export interface TempFolder {
  readonly path: string;
  /** Idempotent. */
  remove(): void;
}

/** Short enough a path for unix sockets in it, whose names end at 107 bytes. */
export function tempFolder(): TempFolder {
  const path = mkdtempSync(join(tmpdir(), "deltavee-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
