// Signals that end a migration in good order; and what a run that is shown needs no page for.

import { expect, test, vi } from "vitest";
import { onInterrupt, openShownRun } from "./common.ts";

const loaded = vi.hoisted(() => [] as string[]);
vi.mock("../web/live-page.ts", (original) => {
  loaded.push("page");
  return original();
});
vi.mock("../web/run-board.ts", (original) => {
  loaded.push("board");
  return original();
});

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "%s cancels once, and is let go of afterwards",
  (signal) => {
    const before = process.listenerCount(signal);
    let cancelled = 0;
    const release = onInterrupt(() => cancelled++);
    process.emit(signal);
    process.emit(signal);
    expect(cancelled).toBe(1);
    release();
    expect(process.listenerCount(signal)).toBe(before);
  },
);

test("the live page is loaded only where it is asked for", async () => {
  const plain = await openShownRun({ quiet: true });
  await plain.close();
  expect(loaded).toEqual([]);
  const shown = await openShownRun({ quiet: true, ui: { host: "127.0.0.1", port: 0, isDefault: false } });
  await shown.close();
  expect(loaded).toEqual(["board", "page"]);
});
