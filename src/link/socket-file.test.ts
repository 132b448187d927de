// Whoever takes a socket's path away is noticed, whichever way, and nobody else.

import { mkdtempSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { listen } from "./address.ts";
import { watchSocketFile } from "./socket-file.ts";

/** Several looks. */
const LONG_MS = 1600;

async function watched() {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-test-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "vm.sock");
  const handlers = { onConnection: () => {}, onError: () => {} };
  const listener = await listen({ kind: "unix", path }, handlers);
  onTestFinished(() => listener.close());
  const seen: string[] = [];
  let tell: (how: string) => void = () => {};
  const gone = new Promise<string>((resolve) => {
    tell = resolve;
  });
  const end = watchSocketFile(path, (how) => {
    seen.push(how);
    tell(how);
  });
  onTestFinished(end);
  return { path, folder, seen, gone, end };
}

test("removed", async () => {
  const { path, gone } = await watched();
  unlinkSync(path);
  expect(await gone).toBe("removed");
});

test("replaced, told once", async () => {
  const { path, folder, gone, seen } = await watched();
  writeFileSync(join(folder, "other"), "");
  renameSync(join(folder, "other"), path);
  expect(await gone).toBe("replaced");
  unlinkSync(path);
  await sleep(LONG_MS);
  expect(seen).toEqual(["replaced"]);
});

test("nothing is told of a socket that is left alone, nor after the watch has ended", async () => {
  const { path, seen, end } = await watched();
  await sleep(LONG_MS);
  expect(seen).toEqual([]);
  end();
  unlinkSync(path);
  await sleep(LONG_MS);
  expect(seen).toEqual([]);
});
