// The command itself: what it prints, for people and for programs, and with what it ends.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { doctorCommand } from "./doctor.ts";

let printed: string;
beforeEach(() => {
  printed = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    printed += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const run = (...words: string[]) => doctorCommand().exitOverride().parseAsync(words, { from: "user" });

test("a problem has an exit code of its own, and a program reads what it is", async () => {
  await run("--qemu", "/bin/false", "--json");
  expect(process.exitCode).toBe(1);
  const { worst, findings } = JSON.parse(printed);
  expect(worst).toBe("problem");
  const levels = Object.fromEntries(
    findings.map((each: { check: string; level: string }) => [each.check, each.level]),
  );
  expect(levels).toMatchObject({ node: "ok", qemu: "problem", kvm: "warning" });
});

test("a person reads what follows and what to do", async () => {
  await run("--qemu", "/bin/false", "--bind", "127.0.0.1:0");
  expect(printed).toMatch(/^problem {2}qemu {2,}\/bin\/false ended with code 1$/m);
  expect(printed).toContain("-> Start it by hand");
  expect(printed).toMatch(/^ok {7}port {2,}127\.0\.0\.1:0 is free$/m);
  expect(printed).toMatch(/\n\n1 problem, 1 warning\n$/);
});

test("a QEMU that waits for its guest is not asked", async () => {
  await expect(run("--peer", "tcp:127.0.0.1:4444")).rejects.toMatchObject({ code: "USAGE" });
  expect(printed).toBe("");
});
