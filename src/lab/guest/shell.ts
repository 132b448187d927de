// A root shell in the guest: each command is a connection of its own to the shell that the guest's init keeps on a port,
// and its exit code comes after its output, behind a mark that no output contains. Whether the guest is at its source or
// has been moved is nothing that it knows.

import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../../base/errors.ts";
import type { GuestShell } from "../model.ts";

/** Where the guest's init (lab/guest/inittab) has it. */
export const SHELL_PORT = 7000;
const TIMEOUT_MS_DEFAULT = 60_000;
const FIRST_TIMEOUT_MS = 3_000;
const RETRY_MS = 100;
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** Of a failed command, in the message. */
const TOLD_CHARACTERS = 2_000;

/** What the guest's shell is given: the command without input, then the mark with its exit code. */
export function shellScript(command: string, mark: string): string {
  return `sh -c ${quote(command)} </dev/null 2>&1; printf '\\n%s %d\\n' ${mark} $?; exit\n`;
}

/** Output and exit code, once the mark is there; undefined before. */
export function parseOutput(text: string, mark: string): { output: string; code: number } | undefined {
  const at = text.lastIndexOf(`\n${mark} `);
  const code = at < 0 ? undefined : /^(\d+)\n/.exec(text.slice(at + mark.length + 2))?.[1];
  return code === undefined ? undefined : { output: text.slice(0, at), code: Number(code) };
}

/** For a POSIX shell. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** `path`: of the unix socket behind which the guest's shell is (client/gateway.ts). */
export function guestShell(path: string): GuestShell {
  const run = async (command: string, timeoutMs = TIMEOUT_MS_DEFAULT): Promise<string> => {
    const { output, code } = await converse(path, command, timeoutMs);
    if (code !== 0) {
      const told = output.slice(-TOLD_CHARACTERS);
      throw new Error(`"${command}" ended with code ${code} in the guest: ${told}`);
    }
    return output;
  };
  return {
    run,
    start: async (command, logFile = "/dev/null") => {
      await run(`setsid sh -c ${quote(command)} >${quote(logFile)} 2>&1 </dev/null &`);
    },
  };
}

/**
 * Resolves when a guest that boots, or has just been loaded, answers.
 * @throws whatever `signal` was aborted with: it is not tried again then
 */
export async function waitForShell(
  shell: GuestShell,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      await shell.run("true", FIRST_TIMEOUT_MS);
      return;
    } catch (cause) {
      if (performance.now() > deadlineMs) {
        throw new Error(`The guest's shell did not answer within ${timeoutMs} ms`, { cause });
      }
    }
    await sleep(RETRY_MS);
    signal?.throwIfAborted();
  }
}

function converse(
  path: string,
  command: string,
  timeoutMs: number,
): Promise<{ output: string; code: number }> {
  const mark = `exit-code-${randomBytes(12).toString("hex")}`;
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = connect(path);
    const fail = (reason: string, cause?: unknown) => {
      clearTimeout(timer);
      socket.destroy();
      reject(new Error(`"${command}" has no outcome: ${reason}`, { cause }));
    };
    const timer = setTimeout(() => fail(`the guest has not answered within ${timeoutMs} ms`), timeoutMs);
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > OUTPUT_BYTES_MAX) fail("it prints without end");
    });
    socket.on("error", (error) => fail(toError(error).message, error));
    // The guest's shell ends with the command, and the connection with the shell.
    socket.on("close", () => {
      const parsed = parseOutput(Buffer.concat(chunks).toString(), mark);
      if (parsed === undefined) return fail("the connection to the guest ended");
      clearTimeout(timer);
      resolve(parsed);
    });
    socket.write(shellScript(command, mark));
  });
}
