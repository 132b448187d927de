// A Linux guest whose only program is Node, so that what it dirties is a real heap with a real garbage collector:
// a map of JSON objects, the older of which are replaced. Made of this machine's own node and its libraries.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { linuxGuest } from "../test/support/linux-guest.ts";
import type { QemuOptions } from "../test/support/qemu-vm.ts";

/** Runs until it is killed. Says READY when its map has been filled once. */
const PROGRAM = `
const [objects, perSecond] = [120000, 6000];
const map = new Map();
let next = 0;
const put = () => {
  const id = next++;
  map.set(id % objects, JSON.parse(JSON.stringify({
    id, name: "object " + id.toString(36), tags: Array.from({ length: 4 }, (_, i) => "tag" + ((id * 7 + i) % 97)),
    at: Date.now(), values: Array.from({ length: 8 }, () => Math.random()),
  })));
};
for (let i = 0; i < objects; i++) put();
console.log("READY node");
setInterval(() => {
  for (let i = 0; i < perSecond / 20; i++) put();
  const mine = map.get(Math.floor(Math.random() ** 3 * objects));
  mine.at = Date.now();
}, 50);
`;

export function nodeGuest(folder: string): Pick<QemuOptions, "kernel" | "initrd" | "append"> | undefined {
  const boot = linuxGuest("");
  if (boot === undefined) return undefined;
  const root = mkdtempSync(join(tmpdir(), "deltavee-node-guest-"));
  try {
    const files = [process.execPath, ...libraries(process.execPath)];
    for (const path of files) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      copyFileSync(path, join(root, path));
    }
    for (const folder of ["proc", "dev", "tmp"]) mkdirSync(join(root, folder));
    writeFileSync(join(root, "init"), `#!${process.execPath}\n${PROGRAM}`, { mode: 0o755 });
    const initrd = join(folder, "node-guest.cpio");
    const list = execFileSync("find", [".", "-mindepth", "1"], { cwd: root });
    const archive = execFileSync("cpio", ["--quiet", "-o", "-H", "newc", "-R", "0:0"], {
      cwd: root,
      input: list,
      maxBuffer: 2 ** 30,
    });
    writeFileSync(initrd, archive);
    return { ...boot, initrd };
  } finally {
    rmSync(root, { recursive: true });
  }
}

function libraries(path: string): string[] {
  const text = execFileSync("ldd", [path], { encoding: "utf8" });
  return [...text.matchAll(/(\/\S+)/g)].map((match) => match[1]!);
}
