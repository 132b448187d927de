// Compiles the project into dist/: the kernels (assembly/, AssemblyScript to WebAssembly), the program (src/,
// TypeScript), then the live page with the modules that it shares with the program (dashboard/). The one place that knows how, for npm run build, the other npm scripts and the tests.
// Plain Node, run as a program: `node scripts/build.mjs [--if-needed]`.

import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, "dist");
/** Written last: without it, or with an older one than a source, there is no usable build. */
const stamp = join(dist, ".built");
const kernelStamp = join(dist, "kernel/.built");

const KERNEL_OPTIONS = [
  // No allocation, no collector: only the functions themselves.
  ...["--runtime", "stub"],
  // src/kernel/memory.ts makes the memory. What is declared here must be what it makes.
  ...["--importMemory", "--noExportMemory", "--sharedMemory"],
  ...["--initialMemory", "2", "--maximumMemory", "65536"],
];
const KERNELS = {
  simd: ["-O3", "--noAssert", "--enable", "threads,simd"],
  scalar: ["-O3", "--noAssert", "--enable", "threads"],
  debug: ["--debug", "--enable", "threads,simd"],
};

/** Ends the process where a compiler fails. */
export function build({ onlyIfNeeded }) {
  const kernelSources = [
    join(root, "assembly"),
    fileURLToPath(import.meta.url),
    join(root, "package-lock.json"),
  ];
  const programSources = [
    join(root, "src"),
    join(root, "tsconfig.json"),
    join(root, "tsconfig.build.json"),
    join(root, "dashboard"),
    join(root, "tsconfig.page.json"),
    join(root, "package-lock.json"),
  ];
  const kernels = !onlyIfNeeded || isOlder(kernelStamp, kernelSources);
  const program = !onlyIfNeeded || isOlder(stamp, programSources);
  if (!kernels && !program) return;
  if (kernels) {
    console.error("deltavee: building the kernels (asc)");
    buildKernels();
  }
  if (program) {
    console.error("deltavee: building (tsc)");
    removeProgram(dist);
    compile("typescript", "tsc", ["-p", "tsconfig.build.json"]);
    buildPage();
    writeFileSync(stamp, "");
  }
}

/** What has no source any more must go. The kernels stay: they are up to date. */
function removeProgram(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && path === dirname(kernelStamp)) removeProgram(path);
    else if (path !== kernelStamp && !path.endsWith(".wasm")) rmSync(path, { recursive: true });
  }
}

function buildKernels() {
  mkdirSync(join(dist, "kernel"), { recursive: true });
  for (const [name, options] of Object.entries(KERNELS)) {
    compile("assemblyscript", "asc", [
      "assembly/index.ts",
      ...["-o", `dist/kernel/${name}.wasm`],
      ...KERNEL_OPTIONS,
      ...options,
    ]);
  }
  writeFileSync(kernelStamp, "");
}

/** Browsers get modules as they are compiled, those that main.js leads to and no others. */
function buildPage() {
  compile("typescript", "tsc", ["-p", "tsconfig.page.json"]);
  const page = join(dist, "page");
  const needed = new Set();
  follow(join(page, "dashboard/main.js"), needed);
  for (const name of readdirSync(page, { recursive: true })) {
    const path = join(page, name);
    if (statSync(path).isFile() && !needed.has(path)) rmSync(path);
  }
  for (const name of readdirSync(join(root, "dashboard"))) {
    if (/\.(html|css|svg)$/.test(name)) {
      copyFileSync(join(root, "dashboard", name), join(page, "dashboard", name));
    }
  }
}

/** Takes a module and all that it imports into `modules`. */
function follow(path, modules) {
  if (modules.has(path)) return;
  modules.add(path);
  for (const [, name] of readFileSync(path, "utf8").matchAll(/^(?:import|export|\}) ?.*?from "(.*)";$/gm)) {
    if (name.startsWith(".")) follow(join(dirname(path), name), modules);
    else {
      console.error(`deltavee: ${path} imports "${name}", which no browser has`);
      process.exit(1);
    }
  }
}

function compile(packageName, name, args) {
  const { status } = spawnSync(process.execPath, [bin(packageName, name), ...args], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** Path of a dependency's executable: started by its file, so that no shell or PATH is involved. */
export function bin(packageName, name) {
  const folder = join(root, "node_modules", packageName);
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return join(folder, typeof bin === "string" ? bin : bin[name]);
}

function isOlder(stampFile, sources) {
  return !existsSync(stampFile) || newestMs(sources) > statSync(stampFile).mtimeMs;
}

/** Of files, and of those in folders and below; tests are not compiled. */
function newestMs(paths) {
  let newest = 0;
  for (const path of paths) {
    const stats = statSync(path);
    if (stats.isDirectory())
      newest = Math.max(newest, newestMs(readdirSync(path).map((name) => join(path, name))));
    else if (!path.endsWith(".test.ts")) newest = Math.max(newest, stats.mtimeMs);
  }
  return newest;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  build({ onlyIfNeeded: process.argv.includes("--if-needed") });
}
