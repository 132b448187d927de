import { expect, test } from "vitest";
import { LineLog } from "./line-log.ts";

test("what has no lines is given up, and takes no more memory however much of it comes", async () => {
  const log = new LineLog();
  const chunk = new Uint8Array(512 * 1024).fill(0x61);
  for (let count = 0; count < 20; count++) log.push(chunk);
  expect(log.unfinished.length).toBeLessThanOrEqual(3 * chunk.length);
  const waiting = log.waitFor(() => true, "line", { timeoutMs: 60_000 });
  await expect(waiting).rejects.toThrow("More output than anybody can want");
});
