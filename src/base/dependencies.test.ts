// What is installed with this package: few, exact, without scripts, and each with its reason on a page.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PACKAGE_ROOT } from "./package-root.ts";

interface Locked {
  version: string;
  integrity?: string;
  hasInstallScript?: boolean;
  dependencies?: Record<string, string>;
}

const read = (file: string) => readFileSync(join(PACKAGE_ROOT, file), "utf8");
const manifest: { dependencies: Record<string, string>; devDependencies: Record<string, string> } =
  JSON.parse(read("package.json"));
const lock: { packages: Record<string, Locked> } = JSON.parse(read("package-lock.json"));
const page = read("docs/decisions/0005-dependencies.md");
/**
 * Of packages that are installed for use, whoever needs them. Not by what the lock says of `dev`: it takes the compiler
 * for something of valibot's, which would use one if there were one.
 */
const inUse = Object.entries(lock.packages).filter(([path]) =>
  namesInUse().has(path.replace("node_modules/", "")),
);

function namesInUse(): Set<string> {
  const names = new Set(Object.keys(manifest.dependencies));
  // What is added while the set is gone through is come to as well.
  for (const name of names) {
    for (const needed of Object.keys(lock.packages[`node_modules/${name}`]?.dependencies ?? {}))
      names.add(needed);
  }
  return names;
}

test("valibot is had from base/schema.ts alone, where what it takes is made stricter", () => {
  const sources = readdirSync(join(PACKAGE_ROOT, "src"), { recursive: true, encoding: "utf8" });
  const users = sources.filter(
    (file) =>
      !file.endsWith(".test.ts") &&
      file.endsWith(".ts") &&
      read(join("src", file)).includes('from "valibot"'),
  );
  expect(users).toEqual(["base/schema.ts"]);
});

const listed = [...page.matchAll(/^\| ([^|]+) \| [^|]+ \| [^|]+ \|$/gm)]
  .flatMap(([, names]) => names!.split(", "))
  .filter((name) => name !== "package");

test("each has its line in decision 5, and no line is of one that is not there", () => {
  const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
  expect([...listed].sort()).toEqual([...names].sort());
});

test("each version is exact, and the one that is locked", () => {
  for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect([name, lock.packages[`node_modules/${name}`]?.version]).toEqual([name, version]);
  }
});

test("nothing that is installed for use has an install script", () => {
  expect(inUse.length).toBeGreaterThan(0);
  const direct = Object.keys(manifest.dependencies).map((name) => `node_modules/${name}`);
  expect(inUse.map(([path]) => path)).toEqual(expect.arrayContaining(direct));
  for (const [path, { hasInstallScript }] of inUse) {
    const { scripts = {} }: { scripts?: Record<string, string> } = JSON.parse(read(`${path}/package.json`));
    const ran = ["preinstall", "install", "postinstall"].filter((name) => name in scripts);
    expect([path, ran, hasInstallScript ?? false]).toEqual([path, [], false]);
  }
});

test("what is installed is what was locked: each has a checksum", () => {
  for (const [path, { integrity }] of inUse)
    expect([path, integrity]).toEqual([path, expect.stringMatching(/^sha512-/)]);
});
