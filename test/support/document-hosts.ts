// Two hosts, host1 and host2, on which commands of the documents run as they stand there: each a network namespace of the
// lab's (src/lab/hosts) with files of its own in /run and /etc, its own name, and the other one's in /etc/hosts. What is
// not as in the documents is in STAND_INS. Needs root, for namespaces.

import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openHosts } from "../../src/lab/hosts/hosts.ts";
import { LineLog } from "./line-log.ts";
import { PACKAGE_ROOT } from "./package-root.ts";
import { type Exit, type Subprocess, startProcess, tempFolder } from "./processes.ts";
import type { QemuBinary } from "./qemu-binaries.ts";
import { GUEST_KERNEL } from "./qemu-vm.ts";

const READY_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 120_000;
const LOOK_EVERY_MS = 20;
/** Of host1 and host2, as joinByLink gives them. */
const ADDRESSES = { host1: "192.0.2.1", host2: "192.0.2.2" } as const;
export const SERIAL_LOG = "/run/vm.log";
/** A monitor for whoever manages the VM, beside the one that the documents name. */
export const OWN_MONITOR = "/run/vm-own.qmp";

/** A guest that is small and at work: what is tested is what the commands do, not how fast. */
export function machineOptions(name: string, log = SERIAL_LOG): string {
  const guest = `-kernel ${GUEST_KERNEL} -append "ws=4096 rate=200 pattern=sparse fill=random"`;
  return `-accel tcg -m 64 -nodefaults -display none ${guest} -serial file:${log} -name ${name}`;
}

export const READERS_VM = `${machineOptions("web-3")} -qmp unix:${OWN_MONITOR},server=on,wait=off`;

/** What stands in the documents for something that the reader has, and what it is here. */
const STAND_INS: Readonly<Record<string, string>> = {
  "...same options as the source...": READERS_VM,
};

export type HostName = keyof typeof ADDRESSES;

export interface Ended extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running extends Subprocess {
  readonly output: LineLog;
  readonly ended: Promise<Ended>;
}

export interface DocumentHost {
  readonly name: HostName;
  /** A path of this host, as this process reaches it. */
  at(path: string): string;
  start(command: string): Promise<Running>;
  run(command: string, input?: string): Promise<Ended>;
  /** Starts what stays until it is told to end, and waits until it can be reached. */
  startAndWait(command: string): Promise<Running>;
}

export interface DocumentHosts {
  readonly host1: DocumentHost;
  readonly host2: DocumentHost;
  remove(): Promise<void>;
}

export async function openDocumentHosts(qemu: QemuBinary): Promise<DocumentHosts> {
  const folder = tempFolder();
  const programs = join(folder.path, "bin");
  mkdirSync(programs);
  program(programs, "deltavee", process.execPath, join(PACKAGE_ROOT, "dist/cli/main.js"));
  program(programs, "qemu-system-x86_64", qemu.path, ...qemu.leadingArguments);
  const hosts = await openHosts({ bytesPerSecond: 125e6, roundTripMs: 0, lossShare: 0 });
  const anchors: Subprocess[] = [];
  const open = async (name: HostName, netns: string) => {
    const anchor = await openAnchor(name, netns);
    anchors.push(anchor);
    const work = join(folder.path, name);
    mkdirSync(work);
    return new Host(name, anchor.pid, work, programs);
  };
  const remove = async () => {
    for (const anchor of anchors) {
      anchor.kill("SIGKILL");
      await anchor.exited;
    }
    await hosts.remove();
    folder.remove();
  };
  try {
    const host1 = await open("host1", hosts.sourceNetns);
    const host2 = await open("host2", hosts.destinationNetns);
    return { host1, host2, remove };
  } catch (thrown) {
    await remove();
    throw thrown;
  }
}

function program(folder: string, name: string, ...command: readonly string[]): void {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\nexec ${command.join(" ")} "$@"\n`);
  chmodSync(path, 0o755);
}

/** Holds a host's namespaces for as long as it runs. */
async function openAnchor(name: HostName, netns: string): Promise<Subprocess> {
  const others = Object.entries(ADDRESSES).map(([host, address]) => `${address} ${host} ${host}.example.com`);
  const script = [
    "mount -t tmpfs tmpfs /run",
    "mount -t tmpfs tmpfs /mnt",
    // What is written there stays here.
    ...["/etc", "/var/lib"].map((path) => {
      const own = `/mnt/${path.replaceAll("/", "-")}`;
      const options = `lowerdir=${path},upperdir=${own},workdir=${own}.work`;
      return `mkdir ${own} ${own}.work && mount -t overlay overlay -o ${options} ${path}`;
    }),
    `printf '127.0.0.1 localhost\\n${others.join("\\n")}\\n' > /etc/hosts`,
    `hostname ${name}`,
    "echo ready",
    "exec sleep infinity",
  ].join("\n");
  const log = new LineLog();
  const unshare = ["unshare", "--mount", "--uts", "--propagation", "private"];
  const [command, ...rest] = [...unshare, "sh", "-ec", script];
  const anchor = await startProcess(command!, rest, { netns, onStdout: (chunk) => log.push(chunk) });
  void anchor.exited.then(() => log.end(new Error(`${name} ended: ${anchor.stderrTail()}`)));
  await log.waitFor(({ text }) => text === "ready", name, { timeoutMs: READY_TIMEOUT_MS });
  return anchor;
}

class Host implements DocumentHost {
  readonly name: HostName;
  readonly #pid: number;
  readonly #work: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(name: HostName, pid: number, work: string, programs: string) {
    this.name = name;
    this.#pid = pid;
    this.#work = work;
    const { XDG_RUNTIME_DIR: _, XDG_CONFIG_HOME: __, XDG_STATE_HOME: ___, ...env } = process.env;
    this.#env = { ...env, HOME: work, PATH: `${programs}:${process.env.PATH}`, NO_COLOR: "1" };
  }

  at(path: string): string {
    return path.startsWith("/") ? `/proc/${this.#pid}/root${path}` : join(this.#work, path);
  }

  async start(command: string): Promise<Running> {
    const output = new LineLog();
    const text: string[] = [];
    const errors: string[] = [];
    const namespaces = ["--target", `${this.#pid}`, "--mount", "--uts", "--net"];
    const script = `cd ${this.#work} && ${standIn(command)}`;
    const child = await startProcess("nsenter", [...namespaces, "bash", "-c", script], {
      env: this.#env,
      onStdout: (chunk) => {
        text.push(chunk.toString());
        output.push(chunk);
      },
      onStderr: (chunk) => {
        errors.push(chunk.toString());
        output.push(chunk);
      },
    });
    const ended = child.exited.then((exit) => {
      output.end(new Error(`${this.name}: ${command}: ended (code ${exit.code}): ${child.stderrTail()}`));
      return { ...exit, stdout: text.join(""), stderr: errors.join("") };
    });
    return { ...child, output, ended };
  }

  async run(command: string, input = ""): Promise<Ended> {
    const running = await this.start(command);
    running.stdin.end(input);
    const timer = setTimeout(() => running.kill("SIGKILL"), COMMAND_TIMEOUT_MS);
    try {
      return await running.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  async startAndWait(asWritten: string): Promise<Running> {
    const command = standIn(asWritten);
    // Without a shell in between that a signal would end alone.
    const running = await this.start(`exec ${command}`);
    if (/^deltavee serve/.test(command)) {
      const isReady = ({ text }: { text: string }) => text.includes('"event":"ready"');
      await running.output.waitFor(isReady, command, { timeoutMs: READY_TIMEOUT_MS });
      return running;
    }
    const monitors = [...command.matchAll(/-qmp unix:([^,\s]+)/g)].map(([, path]) => path!);
    const [, address] = /(?:--listen |-incoming tcp:)(\S+)/.exec(command) ?? [];
    const isThere = () =>
      monitors.every((path) => existsSync(this.at(path))) &&
      (address === undefined || this.#isListening(address));
    let exit: Ended | undefined;
    void running.ended.then((ended) => {
      exit = ended;
    });
    for (const deadlineMs = performance.now() + READY_TIMEOUT_MS; !isThere(); await sleep(LOOK_EVERY_MS)) {
      if (exit !== undefined) throw new Error(`${this.name}: ${command}: ended: ${exit.stderr}`);
      if (performance.now() > deadlineMs) throw new Error(`${this.name}: ${command}: does not get ready`);
    }
    return running;
  }

  #isListening(address: string): boolean {
    if (address.startsWith("unix:")) return existsSync(this.at(address.slice("unix:".length)));
    const port = Number(address.slice(address.lastIndexOf(":") + 1));
    const hexadecimal = port.toString(16).toUpperCase().padStart(4, "0");
    const listening = new RegExp(`^ *\\d+: [0-9A-F]+:${hexadecimal} [0-9A-F]+:0000 0A `, "m");
    return listening.test(readFileSync(`/proc/${this.#pid}/net/tcp`, "latin1"));
  }
}

function standIn(command: string): string {
  return Object.entries(STAND_INS).reduce((text, [what, by]) => text.replaceAll(what, by), command);
}
