// The guest of the lab: kernel, initramfs and disk, made once from Debian's packages, the programs and scripts of
// lab/guest, and kept in the cache until any of these changes. Two layers, so that a changed program does not fetch all
// packages again. The same sources make the same image as far as Debian's archive has the same packages; its versions are
// noted beside it, and file times are those of the making.

import { execFile } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { toError, UsageError } from "../../base/errors.ts";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { cachedFolder, cacheKey } from "../cache.ts";
import { guestPrograms } from "../tools.ts";
import { makeRoot, parsePackages, recipe, SUITE } from "./debian.ts";

/** Of the disk; what nobody has written takes no space. */
const DISK_SIZE = "16G";
/** Of the journal: a guest that is killed is thrown away with its disk. */
const FILE_SYSTEM = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1"] as const;
/** Drivers that a Debian kernel has as modules. */
const DRIVERS = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"] as const;
const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;
const GUEST_FOLDER = join(PACKAGE_ROOT, "lab/guest");

export interface GuestImage {
  /** Of everything that it was made from. */
  readonly key: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** A raw disk. Never written to: QEMUs have overlays of it. */
  readonly disk: string;
  /** "name version" of each of its packages. */
  readonly packages: string;
}

export type Progress = (text: string) => void;

/** The image as the sources of this package say: from the cache, or made, which takes minutes. Needs root. */
export async function buildImage(
  progress: Progress = () => {},
  signal: AbortSignal | undefined = undefined,
): Promise<GuestImage> {
  if (process.geteuid?.() !== 0) {
    throw new UsageError("The guest's root file system can only be made by root: run this as root");
  }
  const packages = parsePackages(readFileSync(join(GUEST_FOLDER, "packages"), "utf8"));
  const baseKey = cacheKey([SUITE, ...recipe(packages)]);
  const programs = await guestPrograms();
  const scripts = ["init.sh", "inittab", "initramfs.sh"].map((name) => join(GUEST_FOLDER, name));
  const key = cacheKey([
    ...[baseKey, basename(programs), DISK_SIZE, ...FILE_SYSTEM, ...DRIVERS],
    ...scripts.map((path) => readFileSync(path)),
  ]);
  const folder = await cachedFolder(`image-${key}`, async (making) => {
    const base = await cachedFolder(`base-${baseKey}`, (baseFolder) => {
      progress(`making a root file system of ${packages.binary.length} packages and what they need`);
      return makeRoot(join(baseFolder, "root"), packages, progress, signal);
    });
    signal?.throwIfAborted();
    progress("making the disk");
    await makeImage(making, join(base, "root"), programs);
  });
  const [kernel, initramfs, disk, list] = ["vmlinuz", "initramfs", "disk.raw", "packages.txt"].map((name) =>
    join(folder, name),
  ) as [string, string, string, string];
  return { key, kernel, initramfs, disk, packages: list };
}

async function makeImage(folder: string, base: string, programs: string): Promise<void> {
  const root = join(folder, "root");
  // Links to the base's files, none of which is written to.
  await command("cp", ["-al", base, root]);
  mkdirSync(join(root, "lab/bin"), { recursive: true });
  for (const name of readdirSync(programs)) copyFileSync(join(programs, name), join(root, "lab/bin", name));
  copyFileSync(join(GUEST_FOLDER, "init.sh"), join(root, "lab/init"));
  chmodSync(join(root, "lab/init"), 0o755);
  copyFileSync(join(GUEST_FOLDER, "inittab"), join(root, "etc/inittab"));

  const kernel = readdirSync(join(root, "boot")).find((name) => name.startsWith("vmlinuz-"));
  if (kernel === undefined) throw new Error("The packages of the guest hold no kernel");
  copyFileSync(join(root, "boot", kernel), join(folder, "vmlinuz"));
  await makeInitramfs(join(folder, "initramfs"), join(folder, "initramfs-root"), root, kernel.slice(8));
  writeFileSync(join(folder, "packages.txt"), await command("chroot", [root, "dpkg-query", "-W"]));
  await command("mke2fs", [...FILE_SYSTEM, "-d", root, join(folder, "disk.raw"), DISK_SIZE]);
  rmSync(root, { recursive: true });
}

/** busybox, the drivers that the kernel has not built in, and initramfs.sh as /init. */
async function makeInitramfs(path: string, content: string, root: string, release: string): Promise<void> {
  for (const name of ["bin", "dev", "root", "modules"]) mkdirSync(join(content, name), { recursive: true });
  copyFileSync(join(root, "bin/busybox"), join(content, "bin/busybox"));
  copyFileSync(join(GUEST_FOLDER, "initramfs.sh"), join(content, "init"));
  for (const name of ["bin/busybox", "init"]) chmodSync(join(content, name), 0o755);
  const needed = ["modprobe", "-a", "-S", release, "--show-depends", ...DRIVERS];
  const modules = [...(await command("chroot", [root, ...needed])).matchAll(/^insmod (\S+)/gm)];
  const paths = [...new Set(modules.map((match) => match[1]!))];
  for (const module of paths) copyFileSync(join(root, module), join(content, "modules", basename(module)));
  writeFileSync(join(content, "modules/order"), paths.map((module) => `${basename(module)}\n`).join(""));
  // With the guest's own cpio: the host may have none.
  const archive = `cd "$1" && find . | ${join(root, "bin/busybox")} cpio -o -H newc -R 0:0 2>/dev/null`;
  const output = await promisify(execFile)("sh", ["-ec", archive, "sh", content], {
    encoding: "buffer",
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  writeFileSync(path, gzipSync(output.stdout));
  rmSync(content, { recursive: true });
}

async function command(name: string, commandArguments: readonly string[]): Promise<string> {
  try {
    return (await promisify(execFile)(name, commandArguments, { maxBuffer: OUTPUT_BYTES_MAX })).stdout;
  } catch (thrown) {
    throw new Error(`${name} failed: ${toError(thrown).message}`, { cause: thrown });
  }
}
