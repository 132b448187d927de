// What is said of hosts that are made up: old programs, little memory, clocks that do not behave.

import { describe, expect, test } from "vitest";
import { findingsText, worstOf } from "./finding.ts";
import { checkClock, checkCongestionControl, checkMemory, checkNode, checkSocketBuffers } from "./host.ts";

const GIB = 2 ** 30;

test.each([
  ["20.19.0", "ok"],
  ["20.18.9", "problem"],
  ["18.20.1", "problem"],
  ["22.1.0", "ok"],
])("Node %s: %s", (version, level) => {
  expect(checkNode(version)).toMatchObject({ check: "node", level, values: { version } });
});

test.each([
  ["room for the page cache", { totalBytes: 16 * GIB, availableBytes: 8 * GIB }, "ok"],
  ["less than it may take", { totalBytes: 16 * GIB, availableBytes: 2 * GIB }, "warning"],
  ["a small guest needs little", { totalBytes: 16 * GIB, availableBytes: 2 * GIB, guestRamBytes: GIB }, "ok"],
  ["next to nothing", { totalBytes: 16 * GIB, availableBytes: GIB / 8 }, "problem"],
] as const)("memory: %s", (_what, host, level) => {
  expect(checkMemory(host)).toMatchObject({ check: "memory", level });
});

test("the advice about memory is an option as migrate takes it", () => {
  const { advice } = checkMemory({ totalBytes: 16 * GIB, availableBytes: 2 * GIB });
  expect(advice).toContain("--cache-size 1024MiB");
});

test("what CUBIC makes of a way that loses packets is said, and how BBR gets such ways", () => {
  const finding = checkCongestionControl("cubic", ["reno", "cubic"]);
  expect(finding).toMatchObject({ check: "tcp", level: "ok" });
  // By the formula of Mathis et al.: 1448 bytes times the root of 1.5 / 0.001, per round trip.
  expect(finding.means).toContain(
    "carries 22.4 Mbit/s at most then at a round trip of 20 ms, 4.5 Mbit/s at 100 ms",
  );
  expect(finding.advice).toContain("modprobe tcp_bbr, then ip route replace PEER via GATEWAY congctl bbr");
  expect(checkCongestionControl("cubic", ["cubic", "bbr"]).advice).not.toContain("modprobe");
  expect(checkCongestionControl("bbr", ["cubic", "bbr"])).not.toHaveProperty("advice");
});

test("where sockets hold little it is said what that means, and how they hold more", () => {
  expect(checkSocketBuffers(212_992)).toMatchObject({
    check: "sockets",
    level: "ok",
    says: "Unix sockets hold 213 kB",
    advice: expect.stringContaining("sysctl -w net.core.wmem_default=4194304"),
  });
  expect(checkSocketBuffers(4_194_304)).not.toHaveProperty("advice");
});

describe("clocks", () => {
  async function look(monotonic: (call: number) => number, wall: (call: number) => number) {
    let [monotonicCalls, wallCalls] = [0, 0];
    const clocks = { monotonicMs: () => monotonic(monotonicCalls++), wallMs: () => wall(wallCalls++) };
    return checkClock(clocks, async () => {});
  }

  test("that run alike are well", async () => {
    const finding = await look(
      (call) => call * 10,
      (call) => 1e12 + call * 10.001,
    );
    expect(finding.level).toBe("ok");
  });

  test("a wall clock that is set meanwhile is told of", async () => {
    const finding = await look(
      (call) => call * 10,
      (call) => 1e12 + call * 10 + (call > 5 ? 3600_000 : 0),
    );
    expect(finding).toMatchObject({ level: "warning", values: { stepMs: 3600_000 } });
  });

  test("a monotonic clock that is none is a problem", async () => {
    const finding = await look(
      (call) => (call === 7 ? 1 : call * 10),
      (call) => call * 10,
    );
    expect(finding.level).toBe("problem");
    expect(finding.says).toContain("backwards");
  });
});

test("the text of findings: level, check, what follows, what to do, and how many there are", () => {
  const findings = [
    { check: "one", level: "ok", says: "all is well" },
    {
      check: "another",
      level: "problem",
      says: "a \u001b[31mbad\u001b[0m thing",
      means: "it fails",
      advice: "mend it",
    },
    { check: "one", level: "warning", says: "not so well" },
  ] as const;
  expect(worstOf(findings)).toBe("problem");
  expect(worstOf([])).toBe("ok");
  expect(findingsText(findings)).toBe(
    [
      "ok       one      all is well",
      "problem  another  a ?[31mbad?[0m thing",
      "                  it fails",
      "                  -> mend it",
      "warning  one      not so well",
      "",
      "1 problem, 1 warning",
      "",
    ].join("\n"),
  );
});
