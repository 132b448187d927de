import { execFileSync } from "node:child_process";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { tempFolder } from "../host-process.ts";
import { guestShell, parseOutput, quote, shellScript, waitForShell } from "./shell.ts";

const MARK = "exit-code-0123";
const folder = tempFolder();
let server: Server | undefined;

/** In place of a guest: `answer` is what its shell does with a connection. */
async function listen(name: string, answer: (socket: Socket) => void): Promise<string> {
  const path = join(folder.path, name);
  server = createServer(answer);
  await new Promise<void>((resolve) => server?.listen(path, resolve));
  return path;
}

afterAll(() => folder.remove());

afterEach(() => {
  server?.close();
});

it("is not waited for any more once that was interrupted", async () => {
  const interrupted = new AbortController();
  const reason = new Error("Interrupted");
  const run = async () => {
    interrupted.abort(reason);
    throw new Error("nobody listens");
  };
  const waited = waitForShell({ run, start: run }, 3000, interrupted.signal);
  await expect(waited).rejects.toBe(reason);
});

describe("the script for the guest's shell", () => {
  const run = (command: string) => execFileSync("sh", { input: shellScript(command, MARK) }).toString();

  it("runs the command, and tells its output and exit code apart", () => {
    expect(parseOutput(run("echo out; echo err >&2; exit 3"), MARK)).toEqual({
      output: "out\nerr\n",
      code: 3,
    });
    expect(parseOutput(run("printf 'no end of line'"), MARK)).toEqual({ output: "no end of line", code: 0 });
  });

  it("has nothing for the command to read: neither the connection nor what comes after it", () => {
    expect(parseOutput(run("cat"), MARK)).toEqual({ output: "", code: 0 });
  });

  it("gives any text to a program as it is", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."'\"\\$`\n; &|a") }), (text) => {
        expect(parseOutput(run(`printf '%s' ${quote(text)}`), MARK)?.output).toBe(text);
      }),
      { numRuns: 30 },
    );
  });
});

describe("a command's end", () => {
  it("is not there before all of its mark is", () => {
    const text = `out\n${MARK} 12\n`;
    for (let length = 0; length < text.length - 1; length++) {
      expect(parseOutput(text.slice(0, length), MARK), `${length}`).toBeUndefined();
    }
    expect(parseOutput(text, MARK)).toEqual({ output: "out", code: 12 });
  });
});

describe("the guest's shell", () => {
  it("whose connection ends without a mark has no outcome", async () => {
    const path = await listen("ends", (socket) => socket.end("half an out"));
    await expect(guestShell(path).run("true")).rejects.toThrow("the connection to the guest ended");
  });

  it("that does not answer is given up", async () => {
    const path = await listen("silent", () => {});
    await expect(guestShell(path).run("true", 50)).rejects.toThrow("not answered within 50 ms");
  });

  it("that is not there is an error with its reason", async () => {
    await expect(guestShell(join(folder.path, "nobody")).run("true")).rejects.toThrow("ENOENT");
  });
});
