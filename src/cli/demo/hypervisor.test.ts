import { expect, test } from "vitest";
import { DeltaveeError } from "../../base/errors.ts";
import { chooseHypervisor, type Probes } from "./hypervisor.ts";

interface Machine {
  qemu?: string;
  /** How long a guest takes to boot; absent: it never does. */
  v86BootMs?: number;
  kvmWorks?: boolean;
}

function probesOf({ qemu, v86BootMs, kvmWorks }: Machine): Probes {
  return {
    qemuVersion: async () => qemu,
    kvmFailure: async () =>
      kvmWorks === true ? undefined : { kind: "absent", text: "there is no /dev/kvm" },
    v86Failure: async (timeoutMs) =>
      (v86BootMs ?? Number.POSITIVE_INFINITY) < timeoutMs ? undefined : new Error("did not boot"),
  };
}

const choose = (machine: Machine, choice: "auto" | "v86" | "qemu" = "auto") =>
  chooseHypervisor(choice, "/bin/qemu", probesOf(machine));
const qemuSpec = (accelerator: "kvm" | "tcg") => ({ kind: "qemu", path: "/bin/qemu", accelerator });

test("v86 is taken where it runs, on a machine so busy too that its guest takes long to boot", async () => {
  for (const v86BootMs of [200, 6000, 30_000]) {
    expect(await choose({ v86BootMs, qemu: "7.2.22" })).toMatchObject({ spec: { kind: "v86" } });
    expect(await choose({ v86BootMs, qemu: "10.0.2", kvmWorks: true })).toMatchObject({
      spec: { kind: "v86" },
    });
  }
});

test("A QEMU that is known to damage its guest is never taken unasked", async () => {
  const refused = await choose({ qemu: "7.2.22" }).catch((thrown: unknown) => thrown);
  expect(refused).toBeInstanceOf(DeltaveeError);
  expect(refused).toMatchObject({ code: "HYPERVISOR_FAILED" });
  const { message } = refused as DeltaveeError;
  for (const part of [
    "v86 does not run here: did not boot",
    "QEMU 7.2.22",
    "loses writes",
    "--hypervisor qemu",
  ]) {
    expect(message).toContain(part);
  }
});

test("Where v86 does not run, a QEMU is taken that keeps its guest whole", async () => {
  for (const [machine, accelerator] of [
    [{ qemu: "10.0.2" }, "tcg"],
    [{ qemu: "7.2.22", kvmWorks: true }, "kvm"],
  ] as const) {
    const chosen = await choose(machine);
    expect(chosen.spec).toEqual(qemuSpec(accelerator));
    expect(chosen.warning).toBeUndefined();
    expect(chosen.says).toContain("v86 does not run here: did not boot");
  }
});

test("Where neither is to be had, it says why", async () => {
  await expect(choose({})).rejects.toMatchObject({
    code: "HYPERVISOR_FAILED",
    message: expect.stringContaining("did not boot"),
  });
});

test("What is asked for by name is taken, with a warning where there is something to warn of", async () => {
  const machine = { qemu: "7.2.22", v86BootMs: 200 };
  const chosen = await choose(machine, "qemu");
  expect(chosen.spec).toEqual(qemuSpec("tcg"));
  expect(chosen.warning).toContain("QEMU 7.2.22 loses writes");
  expect((await choose({ qemu: "10.0.2" }, "qemu")).warning).toBeUndefined();
  await expect(choose({ v86BootMs: 200 }, "qemu")).rejects.toMatchObject({ code: "USAGE" });
  // Nobody needs to be told that it does not run: the run itself will show.
  expect(await choose({}, "v86")).toMatchObject({ spec: { kind: "v86" } });
});
