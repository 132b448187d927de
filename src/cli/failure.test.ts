// What a person is told when a command has failed: what, why, where the VM is, and what to do about it.

import { expect, test } from "vitest";
import { CancelledError, DeltaveeError, LinkError, UsageError } from "../base/errors.ts";
import { exitCodeOf, failureText } from "./failure.ts";

test("an error says its code, all its causes, and where the VM is", () => {
  const cause = new Error("cannot connect", { cause: new Error("ECONNREFUSED") });
  const error = new LinkError("LINK_FAILED", "No destination", { cause, vm: "running on source" });
  expect(failureText(error).split("\n")).toEqual([
    "deltavee: LINK_FAILED: No destination",
    "  because: cannot connect",
    "  because: ECONNREFUSED",
    "  the VM is: running on source",
  ]);
});

test("where it is not known where the VM runs, it says how to find out, and to look at the destination first", () => {
  const text = failureText(new LinkError("LINK_LOST", "No link", { vm: "unknown" }));
  expect(text).toContain("the destination first");
  expect(text).toContain("--resume-here");
});

test("a guest that was not given away is not looked for at the destination, nor let run twice", () => {
  const died = (phase: string) =>
    failureText(
      new DeltaveeError("HYPERVISOR_FAILED", "QEMU closed the connection", { phase, vm: "unknown" }),
    );
  expect(died("iterating")).toContain("It was not given away");
  expect(died("iterating")).not.toContain("--resume-here");
  expect(died("committed")).toContain("the destination first");
});

test("after an interrupted post-copy nobody is told to let the guest run here", () => {
  for (const vm of ["unknown", "with the destination"] as const) {
    const text = failureText(new DeltaveeError("POSTCOPY_INTERRUPTED", "Post-copy was interrupted", { vm }));
    expect(text).toMatch(/recover --listen.*recover --to/s);
    expect(text).not.toContain("--resume-here");
    expect(text).not.toContain("cont)");
  }
});

test("what a finding of recover advises is not said again", () => {
  const error = new DeltaveeError("DECISION_NEEDED", "It is complete here. Look there", { vm: "unknown" });
  expect(failureText(error).split("\n")).toHaveLength(2);
});

test("a bug of ours shows where it is", () => {
  expect(failureText(new TypeError("x is undefined"))).toContain("failure.test.ts");
});

test.each([
  [new UsageError("no"), 2],
  [new DeltaveeError("MAX_TIME_REACHED", "no"), 3],
  [new DeltaveeError("NOT_CONVERGING", "no"), 3],
  [new DeltaveeError("DECISION_NEEDED", "no"), 4],
  [new DeltaveeError("RECOVERY_REFUSED", "no"), 5],
  [new CancelledError("no"), 130],
  [new DeltaveeError("POSTCOPY_INTERRUPTED", "no"), 1],
  [new TypeError("no"), 1],
])("%s: exit code %i", (error, code) => {
  expect(exitCodeOf(error)).toBe(code);
});
