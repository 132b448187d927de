import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { simulatedRecord } from "../../../test/support/simulated-record.ts";
import { openDisplay } from "./display.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function shown(output: { isTTY?: boolean; columns?: number }, environment: NodeJS.ProcessEnv): string {
  let text = "";
  const display = openDisplay(
    { ...output, write: (more) => (text += more) },
    ["standard", "delta"],
    environment,
  );
  for (const label of ["standard", "delta"] as const) {
    let nowMs = 0;
    const listener = display.show(label, () => nowMs);
    for (const event of simulatedRecord(label)) {
      vi.advanceTimersByTime(event.atMs - nowMs);
      nowMs = event.atMs;
      listener(event);
    }
  }
  display.close();
  display.close();
  return text;
}

const ESCAPE = "\u001b";

/** Without what moves the cursor and clears lines. */
function withoutCursor(text: string): string {
  return text.replaceAll(`${ESCAPE}[6A`, "").replaceAll(`${ESCAPE}[2K`, "");
}

test("A terminal is rewritten in place, in colour, and both runs stay on it", () => {
  const text = shown({ isTTY: true, columns: 80 }, {});
  expect(text).toContain(`${ESCAPE}[6A`);
  expect(text).toContain(`${ESCAPE}[1;31mSTANDS STILL`);
  const last = text.split(`${ESCAPE}[6A`).at(-1);
  expect(last).toMatch(/standard {2}completed in[\s\S]*delta {5}completed in/);
});

test("NO_COLOR is respected", () => {
  const text = shown({ isTTY: true, columns: 80 }, { NO_COLOR: "1" });
  expect(text).toContain("STANDS STILL");
  expect(withoutCursor(text)).not.toContain(ESCAPE);
});

test("No line is wider than the terminal, nor than COLUMNS when it does not know its width", () => {
  for (const [columns, environment] of [
    [60, {}],
    [0, { COLUMNS: "60" }],
  ] as const) {
    const text = shown({ isTTY: true, columns }, { ...environment, NO_COLOR: "1" });
    for (const line of withoutCursor(text).split("\n")) {
      expect(line.length).toBeLessThan(60);
    }
  }
});

test("A log and a dumb terminal get a line now and then, and the freeze in words", () => {
  for (const text of [shown({}, {}), shown({ isTTY: true, columns: 80 }, { TERM: "dumb" })]) {
    expect(text).not.toContain(ESCAPE);
    expect(text).toMatch(/ standard {2}the guest has stood still for .*, it now runs on the destination\n/);
    expect(text.split("\n").length).toBeLessThan(80);
  }
});
