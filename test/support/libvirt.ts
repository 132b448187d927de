// Two "hosts" with a libvirtd each, on one machine: session daemons of an unprivileged user, each with state, sockets
// and namespaces of its own, so that one path is another file on each, and everything ends with its daemon. Needs root
// for the namespaces; nothing of the system's own libvirt is touched. What was tried: docs/libvirt.md.

import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../../src/base/errors.ts";
import { LineLog } from "./line-log.ts";
import { type Exit, type Subprocess, startProcess, tempFolder } from "./processes.ts";
import type { QemuBinary } from "./qemu-binaries.ts";
import { GUEST_KERNEL } from "./qemu-vm.ts";
import { parseHeartbeat, parseVerification, type Verification } from "./serial.ts";

/** Whom the daemons run as: nobody, nogroup: libvirt wants a user that has a name. */
export const LIBVIRT_USER_ID = 65_534;
const MEMORY_MIB = 256;
const DAEMON_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 150_000;
const HEARTBEAT_TIMEOUT_MS = 60_000;
const VERIFY_TIMEOUT_MS = 120_000;
/** Where Debian's QEMU has its modules: libvirt's probing loads some, which must be of the same version. */
const LIBRARIES = "/usr/lib/x86_64-linux-gnu";
const MODULES = `${LIBRARIES}/qemu`;

export interface LibvirtBinary {
  /** For people: "libvirtd (libvirt) 9.0.0". */
  readonly name: string;
  /** The folder it was unpacked into; undefined: it is installed. */
  readonly root: string | undefined;
}

/**
 * The installed libvirt, and 11 as scripts/fetch-libvirt11.sh unpacks it. What is missing is printed.
 * @throws Error if one is missing and DELTAVEE_REQUIRE_QEMU is 1
 */
export function findLibvirts(): { installed: LibvirtBinary | undefined; eleven: LibvirtBinary | undefined } {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  return { installed: find(undefined), eleven: find(join(cache, "deltavee/libvirt-11")) };
}

function find(root: string | undefined): LibvirtBinary | undefined {
  try {
    if (process.getuid?.() !== 0) throw new Error("they need root, for namespaces");
    execFileSync("virsh", ["--version"]);
    const environment = root === undefined ? {} : { LD_LIBRARY_PATH: join(root, LIBRARIES) };
    const env = { ...process.env, ...environment };
    const name = execFileSync(daemonOf(root), ["--version"], { encoding: "utf8", env });
    return { name: name.trim().replace(/^\S*\//, ""), root };
  } catch (thrown) {
    const which =
      root === undefined ? "the installed libvirt" : `libvirt 11 (scripts/fetch-libvirt11.sh) in ${root}`;
    const message = `Tests with ${which} are left out: ${toError(thrown).message}`;
    if (process.env.DELTAVEE_REQUIRE_QEMU === "1") throw new Error(message, { cause: thrown });
    console.warn(message);
    return undefined;
  }
}

function daemonOf(root: string | undefined): string {
  return root === undefined ? "libvirtd" : join(root, "usr/sbin/libvirtd");
}

export interface LibvirtHost {
  readonly uri: string;
  /** A folder that its daemon and QEMUs see at `Libvirt.folder` + "/own". */
  readonly own: string;
  /** Names of its domains that run, or are paused. */
  domains(): Promise<string[]>;
}

export interface Libvirt {
  readonly source: LibvirtHost;
  readonly destination: LibvirtHost;
  /** What both see as the same files, apart from "own" in it. */
  readonly folder: string;
  /** Starts the guest at the source and waits until it is at work. */
  startDomain(workload: string): Promise<void>;
  /** Serial line of the domain on one host, from now on. */
  serialOf(host: LibvirtHost): Promise<GuestSerial>;
  /** virsh at the source. It ends with the test at the latest. */
  virsh(...commandArguments: string[]): Promise<Exit & { stdout: string; stderr: string }>;
  /** `virsh migrate --live` to the destination. */
  migrate(...options: string[]): Promise<Exit & { stdout: string; stderr: string }>;
  /** Of the migration under way, by name; empty without one. */
  jobInfo(): Promise<Map<string, string>>;
  /** Ends the domain wherever it is. */
  destroyDomains(): Promise<void>;
  /** Makes `path` one that libvirt's user can connect to. */
  give(path: string): void;
  stop(): Promise<void>;
}

export interface GuestSerial {
  waitForHeartbeats(count: number): Promise<void>;
  verify(): Promise<Verification>;
  /** Counters of all heartbeats so far. */
  counters(): number[];
  close(): void;
}

export const DOMAIN = "deltavee-test";

export async function startLibvirt(binary: QemuBinary, libvirt: LibvirtBinary): Promise<Libvirt> {
  const temporary = tempFolder();
  const folder = temporary.path;
  giveFolder(folder);
  giveFolder(join(folder, "own"));
  copyFileSync(GUEST_KERNEL, join(folder, "guest.elf"));
  const emulator = writeEmulator(folder, binary);
  const daemons: Subprocess[] = [];
  const start = async (name: string, number: number) => {
    const { daemon, host } = await startHost(folder, name, number, binary, libvirt);
    daemons.push(daemon);
    return host;
  };
  const stop = async () => {
    await Promise.all(
      daemons.map((daemon) => {
        // Init of its namespace goes with it, and with that all that runs there.
        daemon.kill("SIGKILL");
        return daemon.exited;
      }),
    );
    temporary.remove();
  };
  try {
    const [source, destination] = await Promise.all([start("source", 1), start("destination", 2)]);
    const virsh = (...commandArguments: string[]) => run(source, commandArguments);
    const serialOf = (host: LibvirtHost) => openSerial(join(host.own, "serial.sock"));
    return {
      ...{ source, destination, folder, virsh, serialOf, stop },
      startDomain: async (workload) => {
        const file = join(folder, "domain.xml");
        writeFileSync(file, domainXml({ folder, emulator, workload }));
        const { code, stderr } = await virsh("create", file);
        if (code !== 0) throw new Error(`The domain was not started: ${stderr}`);
        const serial = await serialOf(source);
        await serial.waitForHeartbeats(20);
        serial.close();
      },
      migrate: (...options) =>
        virsh("migrate", "--live", "--domain", DOMAIN, "--desturi", destination.uri, ...options),
      jobInfo: async () => {
        const { stdout } = await virsh("domjobinfo", DOMAIN);
        const pairs = stdout.split("\n").map((line) => line.split(/:\s+/));
        return new Map(pairs.flatMap(([name, value]) => (name && value ? [[name, value.trim()]] : [])));
      },
      destroyDomains: async () => {
        for (const host of [source, destination]) {
          for (const name of await host.domains()) await run(host, ["destroy", name]);
        }
      },
      give: (path) => chownSync(path, LIBVIRT_USER_ID, LIBVIRT_USER_ID),
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

async function startHost(
  folder: string,
  name: string,
  number: number,
  binary: QemuBinary,
  libvirt: LibvirtBinary,
): Promise<{ daemon: Subprocess; host: LibvirtHost }> {
  const home = join(folder, name);
  for (const part of ["", "run", "cfg", "cfg/libvirt", "cache", "data", "own"]) giveFolder(join(home, part));
  const log = join(home, "libvirtd.log");
  writeFileSync(
    join(home, "cfg/libvirt/libvirtd.conf"),
    `host_uuid = "5e551000-000${number}-4111-8111-0123456789ab"\nlog_outputs = "3:file:${log}"\n`,
  );
  // Without systemd nobody starts virtlogd.
  writeFileSync(join(home, "cfg/libvirt/qemu.conf"), 'stdio_handler = "file"\n');
  const root = qemuRoot(binary);
  // Unpacked it may lie where only its owner looks, and what it looks for lies where the installed one is.
  const unpacked = (from: string, name: string, ...overlaid: string[]) => [
    `mkdir -p ${join(folder, name)} && mount --bind ${from} ${join(folder, name)}`,
    ...overlaid.map((path) => `mount --bind ${join(from, path)} ${path}`),
  ];
  const daemonRoot = libvirt.root === undefined ? undefined : join(folder, "libvirt");
  const libraries = daemonRoot === undefined ? "" : `LD_LIBRARY_PATH=${join(daemonRoot, LIBRARIES)}`;
  const script = [
    `mount --bind ${join(home, "own")} ${join(folder, "own")}`,
    ...(root === undefined ? [] : unpacked(root, "qemu", MODULES)),
    ...(libvirt.root === undefined
      ? []
      : unpacked(libvirt.root, "libvirt", "/usr/share/libvirt", `${LIBRARIES}/libvirt`)),
    // The shell stays, as init of the namespace: it reaps what libvirtd leaves behind.
    `setpriv --reuid ${LIBVIRT_USER_ID} --regid ${LIBVIRT_USER_ID} --clear-groups env ${libraries} ${daemonOf(daemonRoot)} --pid-file ${join(home, "pid")} & wait`,
  ].join("\n");
  const [unshare, ...unshareArguments] = [
    ...["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"],
    ...[
      "env",
      "-i",
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
      `HOME=${home}`,
      `XDG_RUNTIME_DIR=${join(home, "run")}`,
    ],
    ...[`XDG_CONFIG_HOME=${join(home, "cfg")}`, `XDG_CACHE_HOME=${join(home, "cache")}`],
    ...[`XDG_DATA_HOME=${join(home, "data")}`, "sh", "-ec", script],
  ];
  const daemon = await startProcess(unshare!, unshareArguments);
  const uri = `qemu+unix:///session?socket=${join(home, "run/libvirt/libvirt-sock")}`;
  const host: LibvirtHost = {
    ...{ uri, own: join(home, "own") },
    domains: async () => {
      const { stdout } = await run(host, ["list", "--name"]);
      return stdout.split("\n").filter((line) => line.trim() !== "");
    },
  };
  const deadlineMs = performance.now() + DAEMON_TIMEOUT_MS;
  for (;;) {
    // It looks at each QEMU that there is, which takes a while and must not be a part of any migration.
    const { code, stderr } = await run(host, ["domcapabilities", "--emulatorbin", join(folder, "emulator")]);
    if (code === 0) return { daemon, host };
    if (performance.now() > deadlineMs) {
      daemon.kill("SIGKILL");
      throw new Error(`libvirtd does not work: ${stderr} ${daemon.stderrTail()}`);
    }
    await sleep(200);
  }
}

/** The folder that QEMU and its firmware were unpacked into; undefined: it is installed. */
function qemuRoot({ path, leadingArguments }: QemuBinary): string | undefined {
  return leadingArguments.length === 0 ? undefined : dirname(dirname(dirname(path)));
}

/** What libvirt is told is QEMU. */
function writeEmulator(folder: string, binary: QemuBinary): string {
  const emulator = join(folder, "emulator");
  const root = qemuRoot(binary);
  // Unpacked it may lie where only its owner looks: each host sees it at a place of its own.
  const inFolder = (path: string) => (root === undefined ? path : path.replace(root, join(folder, "qemu")));
  const words = [binary.path, ...binary.leadingArguments].map(inFolder);
  writeFileSync(emulator, `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
  chmodSync(emulator, 0o755);
  return emulator;
}

interface Domain {
  folder: string;
  emulator: string;
  workload: string;
}

function domainXml({ folder, emulator, workload }: Domain): string {
  return `<domain type='qemu'>
  <name>${DOMAIN}</name>
  <memory unit='MiB'>${MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${join(folder, "guest.elf")}</kernel>
    <cmdline>${workload}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>
  <devices>
    <emulator>${emulator}</emulator>
    <controller type='usb' model='none'/>
    <serial type='unix'><source mode='bind' path='${join(folder, "own/serial.sock")}'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}

async function run(
  host: Pick<LibvirtHost, "uri">,
  commandArguments: readonly string[],
): Promise<Exit & { stdout: string; stderr: string }> {
  let stdout = "";
  const child = await startProcess("virsh", ["-c", host.uri, ...commandArguments], {
    onStdout: (chunk) => {
      stdout += chunk.toString();
    },
    env: { PATH: process.env.PATH, LC_ALL: "C" },
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), COMMAND_TIMEOUT_MS);
  const exit = await child.exited;
  clearTimeout(timer);
  return { ...exit, stdout, stderr: child.stderrTail() };
}

/** QEMU says nothing to nobody: what was said before is lost. */
async function openSerial(path: string): Promise<GuestSerial> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  const log = new LineLog();
  socket.on("data", (chunk) => log.push(chunk));
  socket.on("error", () => {});
  socket.on("close", () => log.end(new Error("The serial line was closed")));
  return {
    waitForHeartbeats: async (count) => {
      let left = count;
      const isLast = (line: LineLog["lines"][number]) => parseHeartbeat(line) !== undefined && --left <= 0;
      const limits = { timeoutMs: HEARTBEAT_TIMEOUT_MS, from: log.lines.length };
      await log.waitFor(isLast, `${count} heartbeats`, limits);
    },
    verify: async () => {
      const limits = { timeoutMs: VERIFY_TIMEOUT_MS, from: log.lines.length };
      socket.write("v");
      const isIt = ({ text }: { text: string }) => parseVerification(text) !== undefined;
      return parseVerification((await log.waitFor(isIt, "VERIFY", limits)).text)!;
    },
    counters: () => log.lines.flatMap((line) => parseHeartbeat(line)?.counter ?? []),
    close: () => socket.destroy(),
  };
}

function giveFolder(path: string): void {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o700);
  chownSync(path, LIBVIRT_USER_ID, LIBVIRT_USER_ID);
}
