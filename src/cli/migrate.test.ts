// What an operator may promise on the command line. Nothing is connected to before it makes sense.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { STALL_POLICIES } from "../engine/switchover/stall-policies.ts";
import { migrateCommand } from "./migrate.ts";

const NEEDED = ["--qmp", "/nowhere/vm.qmp", "--to", "tcp:host2:4444"];

function parse(...more: string[]): Promise<unknown> {
  return migrateCommand()
    .exitOverride()
    .parseAsync([...NEEDED, ...more, "--quiet"], { from: "user" });
}

describe("a promise that makes no sense is refused", () => {
  test.each([
    ["--max-downtime", "0ms"],
    ["--max-time", "0s"],
    ["--max-time", "10"],
    ["--max-bytes", "0"],
    ["--max-bytes", "much"],
    ["--switchover-timeout", "0"],
    ["--switchover-timeout", "500ms"],
    ["--on-stall", "hope"],
    ["--on-stall", "toString"],
  ])("%s %s", async (option, value) => {
    const error = await parse(option, value).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UsageError);
    expect((error as UsageError).message).toContain(value);
  });
});

test("promises that make sense are taken: then it is the monitor that is missing", async () => {
  for (const policy of Object.keys(STALL_POLICIES)) {
    const promises = [
      "--max-downtime",
      "50ms",
      "--max-time",
      "10m",
      "--max-bytes",
      "5GB",
      "--on-stall",
      policy,
    ];
    await expect(parse(...promises)).rejects.toMatchObject({ code: "QMP_UNAVAILABLE" });
  }
});

test("SIGUSR2 ends nothing, from the beginning on, and is let go of at the end", async () => {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-migrate-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "qmp.sock");
  const before = process.listenerCount("SIGUSR2");
  const during = new Promise((resolve) => {
    // A monitor that goes away before it has said anything.
    const monitor = createServer((socket) => {
      resolve(process.listenerCount("SIGUSR2"));
      socket.destroy();
      monitor.close();
    }).listen(path);
  });
  await expect(parse("--qmp", path)).rejects.toMatchObject({ code: "QMP_UNAVAILABLE" });
  expect(await during).toBe(before + 1);
  expect(process.listenerCount("SIGUSR2")).toBe(before);
});

test("the help names every policy", () => {
  let help = "";
  migrateCommand()
    .configureOutput({ writeOut: (text) => (help += text) })
    .outputHelp();
  for (const [name, says] of Object.entries(STALL_POLICIES)) {
    expect(help).toContain(`${name} `);
    expect(help).toContain(says);
  }
});

test("what only a tunnel has is refused in direct mode, before anything is connected to", async () => {
  for (const [option, value] of [
    ["--codec", "xbrle"],
    ["--verify", undefined],
    ["--reconnect-timeout", "5s"],
    ["--switchover-timeout", "5s"],
  ] as const) {
    await expect(parse(option, ...(value === undefined ? [] : [value]))).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("deltavee://"),
    });
  }
});

test("a comparison of RAM before the guest runs does not go with post-copy", async () => {
  const words = [
    "--qmp",
    "/nowhere/vm.qmp",
    "--to",
    "deltavee://host2:4445",
    "--verify",
    "--on-stall",
    "postcopy",
  ];
  const asked = migrateCommand().exitOverride().parseAsync(words, { from: "user" });
  await expect(asked).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining("--verify") });
});

test("a codec for pages that are not coded is refused, before anything is connected to", async () => {
  const words = [
    "--qmp",
    "/nowhere/vm.qmp",
    "--to",
    "deltavee://host2:4445",
    "--standard",
    "--codec",
    "xbrle",
  ];
  const asked = migrateCommand().exitOverride().parseAsync(words, { from: "user" });
  await expect(asked).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining("--codec") });
});
