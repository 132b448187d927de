// `deltavee doctor`: looks at all that a migration needs before there is one: this host, its QEMUs, its certificates, the
// way to a peer. Changes nothing. What is looked at how is in doctor/; here it is asked for, put together and told.

import { readFileSync } from "node:fs";
import { availableParallelism, freemem, hostname, totalmem } from "node:os";
import { Command, Option } from "commander";
import { parseMs } from "../base/units.ts";
import { version } from "../base/version.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import type { SecurityOptions } from "../library/identity.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { type Address, formatAddress, parseAddress } from "../link/address.ts";
import { interruption } from "./common.ts";
import { checkPairedKeys, checkTlsFolder } from "./doctor/certificates.ts";
import { type Finding, findingsText, worstOf } from "./doctor/finding.ts";
import {
  checkClock,
  checkCongestionControl,
  checkMemory,
  checkNode,
  checkSocketBuffers,
  HOST_CLOCKS,
} from "./doctor/host.ts";
import { checkKvm } from "./doctor/kvm.ts";
import { checkBind, checkPeer, measureFor, type PeerAddress, parsePeer } from "./doctor/peer.ts";
import { checkBinary, checkMonitor, findQemuPaths, NO_QEMU } from "./doctor/qemu.ts";
import { EXIT_FAILED } from "./failure.ts";
import { withSecurityOptions } from "./security.ts";

interface Options extends SecurityOptions {
  qemu: string[];
  qmp?: QmpAddress;
  bind: Address[];
  peer?: PeerAddress;
  tlsHostname?: string;
  hostName: string[];
  listen?: Address;
  timeout: number;
  json?: true;
}

const LISTEN_MS_DEFAULT = 10 * 60_000;

const HELP = `
Each finding is ok, a warning (it works, though not as well as it could), or a problem (a migration will fail on it), with
what follows from it and what to do. Looked at are always: Node, memory, clocks, TCP, the QEMUs of this host and what each
allows (asked of QEMU itself), and whether KVM really works (a tiny guest is booted with it). Where they are named also:
a VM's monitor (--qmp), certificates (--tls-dir), an address to listen on (--bind), a peer (--peer).

--peer measures the link, round trip and clocks where "deltavee doctor --listen" waits: for less than a minute, and with
at most 256 MiB each way. A "deltavee receive" there is found, too, and not disturbed. In direct mode there is nobody to
ask: a QEMU that waits for its guest would take us for the source.

Exit codes: 0 no problem was found (warnings are none), 1 there is a problem, 2 wrong usage.

Examples:
  Is this host ready?
    deltavee doctor
  Before a VM moves: its monitor, the certificates, and the way to the host that it is to move to:
    deltavee doctor --qmp /run/vm.qmp --tls-dir /etc/pki/qemu --peer deltavee://host2.example.com:4445
  What is asked by --peer there:
    deltavee doctor --listen 0.0.0.0:4445 --tls-dir /etc/pki/qemu
`;

export function doctorCommand(): Command {
  const command = new Command("doctor")
    .description("look at all that a migration needs, before there is one: QEMU, KVM, certificates, the link")
    .option(
      "--qemu <path>",
      "the QEMU to look at, may be given more than once (default: all found)",
      collect,
      [],
    )
    .option("--qmp <socket>", "QMP monitor of a VM that is to move", parseQmpAddress)
    .option(
      "--bind <address>",
      "an address to listen on: is it free?",
      (text, before: Address[]) => [...before, parseAddress(text)],
      [],
    )
    .option("--peer <address>", "deltavee://HOST:PORT of the other host", parsePeer)
    .option("--tls-hostname <name>", "whom the peer's certificate must be for, if not for the host of --peer")
    .option("--host-name <name>", "as others call this host, may be given more than once", collect, [])
    .addOption(
      new Option("--listen <address>", "answer the --peer of another host, and look at nothing here")
        .argParser(parseAddress)
        .conflicts(["qemu", "qmp", "bind", "peer"]),
    )
    .addOption(
      new Option("--timeout <duration>", "how long to --listen")
        .argParser(parseMs)
        .default(LISTEN_MS_DEFAULT, "10min"),
    )
    .option("--json", "print the findings as JSON");
  return withSecurityOptions(command).addHelpText("after", HELP).action(doctor);
}

function collect(text: string, before: string[]): string[] {
  return [...before, text];
}

async function doctor(options: Options): Promise<void> {
  if (options.listen !== undefined) {
    await listenForPeers(options.listen, options);
    return;
  }
  const findings = await lookAtAll(options);
  if (options.json) {
    const result = { deltavee: version, host: hostname(), worst: worstOf(findings), findings };
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  } else process.stdout.write(findingsText(findings));
  if (worstOf(findings) === "problem") process.exitCode = EXIT_FAILED;
}

async function lookAtAll(options: Options): Promise<Finding[]> {
  const paths =
    options.qemu.length > 0
      ? options.qemu
      : findQemuPaths({ arch: process.arch, path: process.env.PATH ?? "" });
  const vm =
    options.qmp === undefined ? undefined : await checkMonitor(options.qmp, formatAddress(options.qmp));
  const qemus = await inTurn(paths, (path) => checkBinary(path));
  const works = qemus.findIndex(({ level }) => level !== "problem");
  return [
    checkNode(process.versions.node),
    checkMemory({
      totalBytes: totalmem(),
      availableBytes: availableBytes(),
      guestRamBytes: vm?.guestRamBytes,
    }),
    { check: "cores", level: "ok", says: `${availableParallelism()} cores to code pages on` },
    await checkClock(HOST_CLOCKS),
    ...networkSettings(),
    ...(qemus.length === 0 ? [NO_QEMU] : qemus),
    await checkKvm(paths[works]),
    ...(vm === undefined ? [] : [vm.finding]),
    ...(await inTurn(options.bind, checkBind)),
    ...checkPairedKeys(options.keysDir),
    ...(options.tlsDir === undefined
      ? []
      : await checkTlsFolder(options.tlsDir, { hostNames: hostNames(options) })),
    ...(options.peer === undefined ? [] : await checkPeer(options.peer, options, HOST_CLOCKS)),
  ];
}

/** Nothing where it is not Linux's to tell. */
function networkSettings(): Finding[] {
  const setting = (name: string) => readFileSync(`/proc/sys/net/${name}`, "utf8").trim();
  try {
    const known = setting("ipv4/tcp_available_congestion_control").split(" ");
    return [
      checkCongestionControl(setting("ipv4/tcp_congestion_control"), known),
      checkSocketBuffers(Number(setting("core/wmem_default"))),
    ];
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw thrown;
  }
}

/** One after the other: what is looked at is not to disturb itself. */
async function inTurn<Thing, Found>(
  things: readonly Thing[],
  look: (thing: Thing) => Promise<Found>,
): Promise<Found[]> {
  const found: Found[] = [];
  for (const thing of things) found.push(await look(thing));
  return found;
}

function hostNames({ hostName }: Options): string[] {
  return hostName.length > 0 ? hostName : [hostname()];
}

/** Linux counts what it would give up for it, other systems what is free. */
function availableBytes(): number {
  try {
    const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) * 1024;
  } catch {
    // No Linux.
  }
  return freemem();
}

async function listenForPeers(address: Address, options: Options): Promise<void> {
  const { json, timeout } = options;
  const say = (type: string, text: string, more: object = {}) => {
    if (json) process.stdout.write(`${JSON.stringify({ type, ...more })}\n`);
    else process.stderr.write(`doctor: ${text}\n`);
  };
  const listener = await measureFor(address, options, (message) => say("notice", message, { message }));
  const own = formatAddress(listener.address);
  say("listening", `waiting on ${own} for deltavee doctor --peer (Ctrl-C ends it)`, { address: own });
  const { signal, release } = interruption();
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, timeout);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
  release();
  listener.close();
}
