// Signals that end a migration in good order.

import { expect, test } from "vitest";
import { onInterrupt } from "./common.ts";

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
