// QEMUs as they are found, what they say of themselves, and what is made of that: with answers as QEMU gives them.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { checkKvm } from "./kvm.ts";
import { askBinary, checkBinary, checkMonitor, findQemuPaths, judgeAbilities } from "./qemu.ts";

const NEW = {
  version: "10.0.2",
  package: "",
  switchoverAck: true,
  bandwidth: true,
  multifd: true,
  postcopy: true,
};

test("QEMUs are looked for by the host's architecture, each is found once", () => {
  const files = new Map([
    ["/usr/bin/qemu-system-aarch64", "/usr/bin/qemu-system-aarch64"],
    ["/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64"],
    ["/bin/qemu-system-aarch64", "/usr/bin/qemu-system-aarch64"],
    ["/usr/libexec/qemu-kvm", "/usr/libexec/qemu-kvm"],
    ["./qemu-system-aarch64", "/tmp/trap"],
  ]);
  const find = (path: string) =>
    findQemuPaths(
      { arch: "arm64", path },
      (file) => files.has(file),
      (file) => files.get(file)!,
    );
  expect(find("/usr/bin:/bin:.")).toEqual([
    "/usr/bin/qemu-system-aarch64",
    "/usr/bin/qemu-system-x86_64",
    "/usr/libexec/qemu-kvm",
  ]);
  expect(find("")).toEqual(["/usr/libexec/qemu-kvm"]);
});

test("what a QEMU allows decides, not its version", () => {
  expect(judgeAbilities("q", NEW)).toMatchObject({ level: "ok", values: { switchoverAck: true } });
  const patched = judgeAbilities("q", { ...NEW, version: "7.2.22", bandwidth: false });
  expect(patched.level).toBe("ok");
  const old = judgeAbilities("q", { ...NEW, switchoverAck: false, bandwidth: false });
  expect(old.level).toBe("warning");
  expect(old.says).toContain("multifd, postcopy-ram; not switchover-ack, avail-switchover-bandwidth");
});

test("a program that is no QEMU, or none at all, is a problem", async () => {
  expect(await checkBinary("/nowhere/qemu")).toMatchObject({ check: "qemu", level: "problem" });
  const finding = await checkBinary("/bin/false");
  expect(finding.level).toBe("problem");
  expect(finding.says).toContain("/bin/false");
  await expect(askBinary("/bin/false")).rejects.toMatchObject({ code: "HYPERVISOR_FAILED" });
});

test.each([
  ["absent", "warning"],
  ["forbidden", "warning"],
  ["broken", "problem"],
] as const)("KVM that is %s: %s", async (kind, level) => {
  const finding = await checkKvm("/usr/bin/qemu", async () => ({ kind, text: "it is so" }));
  expect(finding).toMatchObject({ check: "kvm", level, says: "it is so", values: { kind } });
  expect(finding.advice).toBeTypeOf("string");
});

test("KVM that works, and KVM that cannot be looked at", async () => {
  expect(await checkKvm("/usr/bin/qemu", async () => undefined)).toMatchObject({ level: "ok" });
  expect((await checkKvm(undefined)).says).toContain("not looked at");
});

const VM = {
  "query-version": { qemu: { major: 9, minor: 1, micro: 0 }, package: "x" },
  "query-migrate-capabilities": [{ capability: "switchover-ack", state: false }],
  "query-migrate-parameters": { "downtime-limit": 300 },
  "query-memory-size-summary": { "base-memory": 2 ** 30 },
  "query-kvm": { enabled: true, present: true },
};

test("a VM's monitor tells what its QEMU allows, and how large its guest is", async () => {
  const path = monitor(VM);
  const { finding, guestRamBytes } = await checkMonitor({ kind: "unix", path }, path);
  expect(guestRamBytes).toBe(2 ** 30);
  expect(finding).toMatchObject({ check: "vm", level: "ok", values: { version: "9.1.0", multifd: false } });
});

test.each([
  ["a guest that its QEMU would die of", "0x8000000", "problem", /dies in migrations/],
  ["a guest that its QEMU may damage", "0x80000000", "warning", /loses writes/],
])("without KVM %s is told of", async (_what, firstBytes, level, says) => {
  const path = monitor({
    ...VM,
    "query-kvm": { enabled: false, present: true },
    "query-memdev": [{}, {}],
    "human-monitor-command": `pc.ram 4 KiB 0x8000000 0x10000000 0x10000000\ndimm 4 KiB 0x0 0x8000000 ${firstBytes}\n`,
  });
  const { finding, guestRamBytes } = await checkMonitor({ kind: "unix", path }, path);
  expect(guestRamBytes).toBe(2 ** 30);
  expect(finding).toMatchObject({ check: "vm", level, says: expect.stringMatching(says) });
});

test("a monitor that is not there is a problem", async () => {
  const { finding } = await checkMonitor({ kind: "unix", path: "/nowhere/qmp" }, "/nowhere/qmp");
  expect(finding).toMatchObject({ check: "vm", level: "problem" });
});

function monitor(answers: Record<string, unknown>): string {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-doctor-test-"));
  const path = join(folder, "qmp");
  const server: Server = createServer((socket) => {
    socket.write(`${JSON.stringify({ QMP: { version: answers["query-version"], capabilities: [] } })}\n`);
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes.toString();
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const { execute, id } = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        socket.write(`${JSON.stringify({ return: answers[execute] ?? {}, id })}\n`);
      }
    });
  }).listen(path);
  onTestFinished(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  return path;
}
