// The program as a process of its own: what may happen to it while it works.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { PACKAGE_ROOT } from "../../test/support/package-root.ts";

test("goes on working when whoever reads what it prints has gone away", async () => {
  const words = ["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--json"];
  const program = spawn(process.execPath, [join(PACKAGE_ROOT, "dist/cli/main.js"), ...words]);
  onTestFinished(() => void program.kill("SIGKILL"));
  const ended = once(program, "exit");
  const [line] = await once(createInterface(program.stdout), "line");
  const port = Number(JSON.parse(line).address.split(":").at(-1));
  program.stdout.destroy();
  program.stderr.destroy();
  // Each is told of on both; a program that minds is gone by the second.
  for (let count = 0; count < 3; count++) {
    const socket = connect(port, "127.0.0.1").resume();
    // Refused when the program is gone: the exit code shows that.
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("close", resolve));
  }
  expect(program.exitCode).toBeNull();
  program.kill("SIGTERM");
  expect(await ended).toEqual([0, null]);
});
