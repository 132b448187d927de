import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { expectedMs, guestKernelPath, guestOptions, guestText, WORKLOADS, workloadHelp } from "./guest.ts";

const MIB = 1024 * 1024;

test("A workload becomes the guest's command line, with a quarter of its memory to work in", () => {
  expect(guestOptions(WORKLOADS.sparse, 64 * MIB)).toBe(
    "ws=16384 rate=5000 pattern=sparse fill=random hb=10",
  );
  expect(guestOptions(WORKLOADS.hot, 64 * MIB)).toContain("pattern=hot hot=1024 ");
  expect(guestText(64 * MIB)).toBe("64 MiB RAM, 16 MiB working set");
});

test("Options that the workloads use are those of the guest's documentation", () => {
  const documentation = readFileSync(new URL("../../../guest/README.md", import.meta.url), "utf8");
  for (const workload of Object.values(WORKLOADS)) {
    for (const option of guestOptions(workload, 64 * MIB).split(" ")) {
      const [key, value = ""] = option.split("=");
      expect(documentation).toContain(`| \`${key}\` |`);
      if (!/^\d+$/.test(value)) expect(documentation).toContain(`\`${value}\``);
    }
  }
});

test("The kernel is where it is looked for", () => {
  expect(readFileSync(guestKernelPath).subarray(1, 4).toString()).toBe("ELF");
});

test("The default demo takes about a minute, and longer on a slower link", () => {
  const defaultMs = expectedMs(WORKLOADS.sparse, 64 * MIB, 20e6 / 8);
  expect(defaultMs).toBeGreaterThan(30_000);
  expect(defaultMs).toBeLessThan(75_000);
  expect(expectedMs(WORKLOADS.sparse, 64 * MIB, 10e6 / 8)).toBeGreaterThan(defaultMs);
  expect(expectedMs(WORKLOADS.idle, 64 * MIB, 20e6 / 8)).toBeLessThan(defaultMs);
});

test("Help has a line for each workload that fits an 80 column terminal", () => {
  const lines = workloadHelp().split("\n");
  expect(lines).toHaveLength(Object.keys(WORKLOADS).length);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
});
