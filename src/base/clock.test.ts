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

test("a timer of the system for a time that has passed fires at once, and Node is not asked for a negative one", async () => {
  const asked = vi.spyOn(globalThis, "setTimeout");
  await new Promise<void>((resolve) => void systemClock.after(-5, resolve));
  const delays = asked.mock.calls.map(([, delayMs]) => delayMs);
  asked.mockRestore();
  expect(delays).toEqual([0]);
});
