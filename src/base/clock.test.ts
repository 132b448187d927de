// The clock of production: what is asked of it for months does not come at once.

import { afterEach, expect, test, vi } from "vitest";
import { systemClock } from "./clock.ts";

afterEach(() => void vi.restoreAllMocks());

test.each([1000, 2 ** 31 - 1, 2 ** 31, Number.POSITIVE_INFINITY])(
  "a timer of %d ms is one that Node can keep",
  (delayMs) => {
    const set = vi.spyOn(globalThis, "setTimeout");
    systemClock.after(delayMs, () => {})();
    expect(set.mock.calls[0]![1]).toBe(Math.min(delayMs, 2 ** 31 - 1));
  },
);
