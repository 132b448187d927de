// `deltavee doctor` on this host as it is: what it says of real QEMUs, of KVM and of a guest that runs.

import { expect, onTestFinished, test } from "vitest";
import { usableAccelerator } from "../support/accelerator.ts";
import { runCli } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { startQemu } from "../support/qemu-vm.ts";

interface Finding {
  check: string;
  level: string;
  says: string;
  values?: Record<string, unknown>;
}

const qemus = [...findQemus().values()];

async function doctor(...words: string[]) {
  const run = await runCli(["doctor", "--json", ...words]);
  const { code } = await run.exited;
  const { findings } = JSON.parse(run.stdout.lines.map(({ text }) => text).join("\n"));
  const found = (check: string) => (findings as Finding[]).filter((finding) => finding.check === check);
  return { code, findings: findings as Finding[], found };
}

test.skipIf(qemus.length === 0).each(qemus)(
  "QEMU $name says what it allows, and KVM is tried",
  async (binary) => {
    const { code, findings, found } = await doctor("--qemu", binary.path);
    const { major, minor, micro } = binary.version;
    const [qemu, ...others] = found("qemu");
    expect(others).toEqual([]);
    // Known of these two by facts: 7.2 has neither, 10.0 has both.
    const isNew = major >= 10;
    expect(qemu!.values).toMatchObject({
      version: `${major}.${minor}.${micro}`,
      switchoverAck: isNew,
      bandwidth: isNew,
      multifd: true,
      postcopy: true,
    });
    const works = (await usableAccelerator(binary)) === "kvm";
    expect(found("kvm").map(({ level }) => level === "ok")).toEqual([works]);
    const hasProblem = findings.some(({ level }) => level === "problem");
    expect(code).toBe(hasProblem ? 1 : 0);
  },
);

test.skipIf(qemus.length === 0)("a guest that runs is known by its monitor, and runs on", async () => {
  const vm = await startQemu({ binary: qemus[0]!, memoryMiB: 96, append: "ws=1024 rate=100" });
  onTestFinished(() => vm.stop());
  await vm.waitForReady();
  const { found } = await doctor("--qemu", "/bin/false", "--qmp", vm.toolQmp.path);
  expect(found("vm")).toMatchObject([{ values: { guestRamBytes: 96 * 2 ** 20 } }]);
  const from = vm.serial.lines.length;
  const isBeat = ({ text }: { text: string }) => text.startsWith("HB ");
  await expect(vm.serial.waitFor(isBeat, "heartbeat", { timeoutMs: 180_000, from })).resolves.toBeDefined();
});
