import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { DeltaveeError, QemuStreamError } from "./errors.ts";

const source = readFileSync(new URL("./errors.ts", import.meta.url), "utf8");
const page = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8");

/** The members of ErrorCode, read from its source: a type leaves nothing to ask at run time. */
const codes = [.../export type ErrorCode =([^;]+);/.exec(source)![1]!.matchAll(/"([A-Z_]+)"/g)].map(
  (match) => match[1]!,
);
const documented = [...page.matchAll(/^\| `([A-Z_]+)` \|/gm)].map((match) => match[1]!);

describe("docs/errors.md", () => {
  test("lists every error code, and none that does not exist", () => {
    expect(codes.length).toBeGreaterThan(10);
    expect([...documented].sort()).toEqual([...codes].sort());
  });
});

describe("errors", () => {
  test("keep their cause without repeating it in the message", () => {
    const error = new DeltaveeError("LINK_FAILED", "Connecting to host2:4445 failed", {
      cause: new Error("refused"),
    });
    expect(error.message).not.toContain("refused");
    expect((error.cause as Error).message).toBe("refused");
    expect(error.name).toBe("DeltaveeError");
  });

  test("of a stream say where they are", () => {
    const error = new QemuStreamError("Machine name too long", 8, "configuration");
    expect(error.message).toContain("offset 8");
    expect(error.message).toContain("section configuration");
    expect(error.code).toBe("STREAM_CORRUPT");
  });
});
