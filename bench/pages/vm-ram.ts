// Set "vm": RAM of a Linux guest under QEMU that runs everyday programs (vm-init.sh), between snapshots some 0.2
// to 1 s apart. The guest's RAM is a file that is copied while the guest stands still. The test guests are no use
// here: their way of dirtying pages is synthetic.

import { execFileSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../../src/base/errors.ts";
import { linuxKernel } from "../../test/support/linux-guest.ts";
import { PACKAGE_ROOT } from "../../test/support/package-root.ts";
import { tempFolder } from "../../test/support/processes.ts";
import { findQemus, type QemuBinary } from "../../test/support/qemu-binaries.ts";
import { startQemu } from "../../test/support/qemu-vm.ts";
import { PAGE_BYTES, type PageSet, PairCollector } from "./page-set.ts";

const GAPS_MS = [200, 500, 1000, 200, 500, 1000];
const MEMORY_MIB = 512;
const READ_BYTES = 64 * 1024 * 1024;

/** Undefined, with the reason printed, where there is no QEMU or no guest for it. */
export async function vmRam(): Promise<PageSet | undefined> {
  const qemus = findQemus();
  const binary = qemus.get("10.0") ?? [...qemus.values()][0];
  const folder = tempFolder();
  try {
    if (binary === undefined) throw new Error("no QEMU here");
    const kernel = linuxKernel();
    const initrd = makeInitramfs(folder.path);
    const collector = await changedPages(binary, kernel, initrd, folder.path);
    return {
      name: "vm",
      description:
        `RAM of a ${MEMORY_MIB} MiB Linux guest (QEMU ${binary.name}, TCG): tar, gzip, sort, awk, sha256sum, ` +
        "shell scripts over a tmpfs; 0.2 to 1 s apart",
      kind: "vm",
      ...collector.pages,
    };
  } catch (thrown) {
    console.error(`set vm is left out: ${toError(thrown).message}`);
    return undefined;
  } finally {
    folder.remove();
  }
}

async function changedPages(
  binary: QemuBinary,
  kernel: string,
  initrd: string,
  folder: string,
): Promise<PairCollector> {
  const ram = join(existsSync("/dev/shm") ? "/dev/shm" : folder, `deltavee-bench-ram-${process.pid}`);
  const backend = `memory-backend-file,id=ram,size=${MEMORY_MIB}M,mem-path=${ram},share=on`;
  const vm = await startQemu({
    binary,
    memoryMiB: MEMORY_MIB,
    kernel,
    initrd,
    append: "console=ttyS0 quiet panic=-1",
    extraArguments: ["-object", backend, "-machine", "memory-backend=ram"],
  });
  // Nobody else will open it by its name: it is gone with the last who has it open.
  const file = openSync(ram, "r");
  unlinkSync(ram);
  try {
    await vm.waitForReady();
    const [before, now] = [new Uint8Array(vm.memoryBytes), new Uint8Array(vm.memoryBytes)];
    const snapshot = async (target: Uint8Array): Promise<void> => {
      await vm.qmp.execute("stop");
      for (let at = 0; at < target.length; ) at += readSync(file, target, at, READ_BYTES, at);
      await vm.qmp.execute("cont");
    };
    const pageOf = (ram: Uint8Array, page: number) =>
      ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    const collector = new PairCollector();
    for (const gapMs of GAPS_MS) {
      await snapshot(before);
      await sleep(gapMs);
      await snapshot(now);
      collector.add(now.length / PAGE_BYTES, (page) => [pageOf(before, page), pageOf(now, page)]);
    }
    return collector;
  } finally {
    closeSync(file);
    await vm.stop();
  }
}

/** busybox, vm-init.sh as /init, and some megabytes of source text as /data. Needs cpio. */
function makeInitramfs(folder: string): string {
  const root = join(folder, "root");
  mkdirSync(join(root, "bin"), { recursive: true });
  for (const name of ["proc", "dev", "tmp", "data"]) mkdirSync(join(root, name));
  cpSync(busybox(folder), join(root, "bin/busybox"));
  symlinkSync("busybox", join(root, "bin/sh"));
  cpSync(join(PACKAGE_ROOT, "bench/pages/vm-init.sh"), join(root, "init"));
  for (const name of ["src", "docs", "node_modules/@types/node", "node_modules/valibot/dist"]) {
    const from = join(PACKAGE_ROOT, name);
    if (existsSync(from)) cpSync(from, join(root, "data", name), { recursive: true });
  }
  const initramfs = join(folder, "initramfs.cpio");
  execFileSync(
    "sh",
    ["-c", `chmod 755 init bin/busybox && find . | cpio --quiet -o -H newc >"$1"`, "sh", initramfs],
    {
      cwd: root,
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  return initramfs;
}

/** A static busybox: the installed one, or Debian's, fetched and not installed. */
function busybox(folder: string): string {
  const path = join(folder, "busybox/bin/busybox");
  const download = ["download", "-o", "APT::Sandbox::User=root", "busybox-static"];
  const quiet = { cwd: folder, stdio: "ignore" } as const;
  try {
    execFileSync("apt-get", download, quiet);
  } catch {
    execFileSync("apt-get", ["update"], quiet);
    execFileSync("apt-get", download, quiet);
  }
  const archive = readdirSync(folder).find((name) => name.startsWith("busybox-static"))!;
  execFileSync("dpkg", ["-x", archive, "busybox"], quiet);
  return path;
}
