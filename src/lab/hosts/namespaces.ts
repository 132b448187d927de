// Network namespaces as test hosts: made under names that tell their owner, and removed with all that runs in them.
// Needs root and iproute2. What is between them is for others to lay.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { toError, UsageError } from "../../base/errors.ts";
import type { Congestion } from "../model.ts";
import { isLeftover, ownedName } from "../ownership.ts";

/**
 * What Linux comes with, whatever this host has set for itself, so that results are the same elsewhere; and IPv6 stays
 * silent. A default congestion control may not be set in a namespace: addAddress has it.
 */
const SETTINGS = {
  "net/ipv4/tcp_rmem": "4096 131072 6291456",
  "net/ipv4/tcp_wmem": "4096 16384 4194304",
  "net/ipv6/conf/default/disable_ipv6": "1",
} as const;
const END_TIMEOUT_MS = 10_000;
const LOOK_EVERY_MS = 20;

/** @throws UsageError, before anything is done, where namespaces cannot be made */
export function requireNamespaces(): void {
  if (process.platform !== "linux") {
    throw new UsageError(`Test hosts are network namespaces, which ${process.platform} has not: use Linux`);
  }
  if (process.geteuid?.() !== 0) {
    throw new UsageError("Test hosts are network namespaces, which only root may make: run this as root");
  }
  try {
    run("ip", "-V");
    run("tc", "-V");
  } catch (cause) {
    throw new UsageError(
      "Test hosts are laid out by ip and tc, which are not here: apt-get install iproute2",
      {
        cause,
      },
    );
  }
}

/** @throws Error where it cannot be made */
export function addNamespace(prefix: string, rest: string): string {
  const name = ownedName(prefix, rest);
  run("ip", "netns", "add", name);
  const settings = Object.entries(SETTINGS).map(([path, value]) => `echo ${value} >/proc/sys/${path}`);
  try {
    run("ip", "netns", "exec", name, "sh", "-ec", settings.join("\n"));
    run("ip", "-n", name, "link", "set", "lo", "up");
  } catch (thrown) {
    run("ip", "netns", "del", name);
    throw thrown;
  }
  return name;
}

/** `network`: of the address, with its length. `congestion`: of TCP connections to it. The device must be up. */
export function addAddress(
  netns: string,
  device: string,
  address: string,
  network: string,
  congestion: Congestion = "cubic",
): void {
  const length = network.slice(network.indexOf("/"));
  run("ip", "-n", netns, "address", "add", `${address}${length}`, "dev", device, "noprefixroute");
  run("ip", "-n", netns, "route", "add", network, "dev", device, "src", address, "congctl", congestion);
}

/** Known for good: nobody has to ask for it, and no answer can be lost. */
export function addNeighbour(netns: string, device: string, address: string, mac: string): void {
  run("ip", "-n", netns, "neigh", "add", address, "lladdr", mac, "nud", "permanent", "dev", device);
}

/** With the processes in it and its devices. Idempotent. */
async function removeNamespace(name: string): Promise<void> {
  if (!namespaces().includes(name)) return;
  for (const deadlineMs = performance.now() + END_TIMEOUT_MS; ; await sleep(LOOK_EVERY_MS)) {
    const pids = run("ip", "netns", "pids", name).split("\n").filter(Boolean).map(Number);
    const alive = pids.filter(isRunning);
    if (alive.length === 0) break;
    if (performance.now() > deadlineMs)
      throw new Error(`Processes in ${name} do not end: ${alive.join(", ")}`);
    for (const pid of alive) killIfThere(pid);
  }
  run("ip", "netns", "del", name);
}

/**
 * Each of them, also where another cannot be: what is removed is taken from `names`, so that a second call tries the
 * rest again. @throws AggregateError that names those which are left
 */
export async function removeNamespaces(
  names: string[],
  remove: (name: string) => Promise<void> = removeNamespace,
): Promise<void> {
  const errors: Error[] = [];
  for (const name of [...names]) {
    try {
      await remove(name);
      names.splice(names.indexOf(name), 1);
    } catch (thrown) {
      errors.push(toError(thrown));
    }
  }
  if (errors.length > 0) {
    throw new AggregateError(
      errors,
      `Test hosts are left: ${errors.map(({ message }) => message).join("; ")}`,
    );
  }
}

/** What killed runs have left behind; runs that are alive are not touched. */
export async function removeLeftoverNamespaces(prefix: string): Promise<void> {
  await removeNamespaces(namespaces().filter((name) => isLeftover(name, prefix)));
}

export function namespaces(): string[] {
  return run("ip", "netns", "list")
    .split("\n")
    .map((line) => line.split(" ")[0]!)
    .filter(Boolean);
}

/** @returns what it printed. @throws Error with what it said when it failed */
export function run(command: string, ...commandArguments: string[]): string {
  try {
    return execFileSync(command, commandArguments, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (thrown) {
    throw new Error(`${command} ${commandArguments.join(" ")} failed: ${toError(thrown).message}`);
  }
}

/** One that has ended and waits for its parent to notice does nothing any more. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
