// The commands of the documents, run as they stand there, in their order, between two hosts that are called as they are
// called there (test/support/document-hosts.ts has what stands for what). Which blocks are run here, which by another
// test, and which by none, and why: test/support/document-blocks.ts.

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { QmpClient } from "../../src/hypervisor/qemu/qmp.ts";
import { PageClass } from "../../src/trace/format.ts";
import { TraceWriter } from "../../src/trace/writer.ts";
import { Authority, writeTlsFolder } from "../support/certificates.ts";
import { blocksOf, commandsOf, DOCUMENTS, TREATMENTS } from "../support/document-blocks.ts";
import {
  type DocumentHost,
  type DocumentHosts,
  type Ended,
  machineOptions,
  OWN_MONITOR,
  openDocumentHosts,
  READERS_VM,
  type Running,
  SERIAL_LOG,
} from "../support/document-hosts.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { whyNoTestHosts } from "../support/test-hosts.ts";

const TIMEOUT_MS = 240_000;
const qemus = findQemus();
const qemu = qemus.get("10.0") ?? qemus.get("7.2");
const whyNot = qemu === undefined ? "no QEMU" : await whyNoTestHosts();

let hosts: DocumentHosts;
/** By their command: what the scene under way has started, and what has ended in it. */
let running: Map<string, Running>;
let ended: Map<string, Ended>;

/** What is to be said of a command that is not simply run and has to succeed; by how it begins. */
interface Manner {
  /** Who types it, where the document does not say. */
  readonly host?: DocumentHost["name"];
  readonly before?: () => Promise<void>;
  /** Words that stand for something that is known only now. */
  readonly words?: () => Readonly<Record<string, string>>;
  readonly input?: () => Promise<string>;
  readonly codes?: readonly number[];
}

interface Scene {
  readonly block: string;
  /** What the reader of the document has by then. */
  readonly given?: () => Promise<unknown>;
  readonly manners?: Readonly<Record<string, Manner>>;
  readonly expected: () => Promise<unknown>;
}

const STAYS = /^(?:qemu-system-x86_64|deltavee (?:receive|serve|proxy)|.* --listen )/;
/** Those of them that end when they have done what they wait for. */
const ENDS_BY_ITSELF = /^deltavee (?:receive|pair) /;

const SCENES: readonly Scene[] = [
  {
    block: "docs/quick-start.md, Between two hosts",
    manners: { "deltavee pair --with": { input: shownCode } },
    expected: async () => {
      expect((await hosts.host1.run("deltavee pair --list")).stdout).toMatch(/^host2\tsha256:/);
      expect((await hosts.host2.run("deltavee pair --list")).stdout).toMatch(/^host1\tsha256:/);
    },
  },
  {
    block: "docs/quick-start.md, Between two hosts (2)",
    given: guest,
    // 1: there is a problem. KVM may not work here.
    manners: { "deltavee doctor --qmp": { codes: [0, 1] } },
    expected: async () => {
      expect(outputOf("deltavee doctor --qmp")).toMatch(/link to host2|host2:4445/);
    },
  },
  {
    block: "docs/quick-start.md, Between two hosts (3)",
    given: async () => {
      await guest();
      await waitingQemu();
    },
    expected: expectMoved,
  },
  { block: "README.md, Moving a VM of your own", given: guest, expected: expectMoved },
  { block: "README.md, Moving a VM of your own (2)", given: guest, expected: expectMoved },
  {
    block: "docs/choosing-a-mode.md, Who may come in",
    given: async () => {
      const authority = new Authority();
      for (const { name, at } of [hosts.host1, hosts.host2].map((host) => ({
        name: host.name,
        at: host.at("/etc/pki/qemu"),
      }))) {
        writeTlsFolder(at, authority, authority.issue([`${name}.example.com`]));
      }
      await guest();
      await waitingQemu();
    },
    manners: { "deltavee receive": { host: "host2" } },
    expected: expectMoved,
  },
  {
    block: "docs/how-it-works.md, What happens when something fails",
    given: cutOff,
    manners: {
      "deltavee status": { codes: [4] },
      "deltavee recover SESSION": { words: () => ({ SESSION: session() }) },
    },
    expected: expectStillHere,
  },
  {
    block: "docs/reliability.md, status and recover",
    given: cutOff,
    manners: {
      "deltavee status": { codes: [4] },
      "deltavee recover 6f1c": { words: () => ({ "6f1c": session().slice(0, 4) }) },
      "deltavee recover --qmp": {
        before: async () => {
          await expectStillHere();
          await cutOffAgain();
          rmSync(hosts.host1.at("/run/deltavee"), { recursive: true });
        },
      },
    },
    expected: expectStillHere,
  },
  {
    block: "docs/live-page.md, The live page",
    given: async () => {
      await guest();
      await waitingQemu();
      await start(hosts.host2, "deltavee receive --listen 0.0.0.0:4445 --qmp /run/vm.qmp");
    },
    expected: async () => {
      expect(outputOf("deltavee migrate")).toContain("Live page: http://127.0.0.1:9437/");
      await expectMoved();
    },
  },
  {
    block: "docs/operations.md, The service",
    expected: async () => {
      const config = parse(readFileSync(hosts.host1.at("serve.yaml"), "utf8"));
      expect(config).toMatchObject({ outgoing: { concurrent: 4 } });
      expect((await hosts.host1.run("deltavee service list")).code).toBe(0);
    },
  },
  {
    block: "docs/operations.md, The service (2)",
    given: async () => {
      // On another host: what the page says of one that takes VMs in.
      const settings = { incoming: { listen: "0.0.0.0:4445", qmp: "/run/vms/{name}.qmp" } };
      writeFileSync(hosts.host2.at("serve.yaml"), JSON.stringify(settings));
      writeFileSync(hosts.host1.at("serve.yaml"), "{}");
      for (const host of [hosts.host1, hosts.host2]) {
        await host.run("mkdir -p /run/vms");
        await start(host, "deltavee serve --config serve.yaml");
      }
      await vms("web-1", "web-2");
    },
    manners: {
      "deltavee evacuate --to deltavee://host2:4445 /run/vms/db.qmp=3": {
        before: async () => {
          await expectLeft("web-1", "web-2");
          await vms("db", "web");
        },
      },
      "deltavee service list": {
        before: async () => {
          await expectLeft("db", "web");
          await vms("slow");
          // Its source is told, over the control socket, to take its time.
          await hosts.host1.run(
            `curl -s --unix-socket /run/deltavee/control.sock -H 'Content-Type: application/json' ` +
              `-d '{"qmp":"/run/vms/slow.qmp","to":"deltavee://host2:4445","maxBandwidth":"100kbit"}' http://localhost/v1/migrations`,
          );
        },
      },
      "deltavee service cancel": {
        words: () => ({
          "3f9a01c2": /(\w+) {2}slow to /.exec(outputOf("deltavee service list"))?.[1] ?? "none",
        }),
      },
    },
    expected: async () => {
      const list = async () => (await hosts.host1.run("deltavee service list")).stdout;
      await expect.poll(list, { timeout: 60_000 }).toMatch(/cancelled \w+ {2}slow to /);
      expect(await query(hosts.host1, "/run/vms/slow.qmp")).toBe("running");
    },
  },
  {
    block: "docs/operations.md, systemd",
    given: () => hosts.host1.run(`ln -s ${process.cwd()}/packaging packaging; mkdir -p /etc/systemd/system`),
    expected: async () => {
      const unit = readFileSync(hosts.host1.at("/etc/systemd/system/deltavee.service"), "utf8");
      expect(unit).toContain("/etc/deltavee/serve.yaml");
      const checked = await hosts.host1.run("deltavee config check /etc/deltavee/serve.yaml");
      expect(checked.code).toBe(0);
    },
  },
  {
    block: "README.md, The lab",
    expected: async () => expect(outputOf("deltavee lab list")).toContain("headline"),
  },
  {
    block: "docs/page-cache.md, With your own guest",
    given: async () => writeTrace(hosts.host1.at("vm.trace")),
    expected: async () => expect(outputOf("deltavee trace replay")).toMatch(/optimal/),
  },
  {
    block: "docs/libvirt.md, Others",
    given: async () => {
      await guest();
    },
    expected: async () => {
      const { block } = SCENES.at(-1)!;
      const text = textOf(block);
      for (const command of monitorCommands(text, "source's monitor")) await monitor(hosts.host1, command);
      await expect
        .poll(() => monitor(hosts.host1, "info migrate"), { timeout: 60_000 })
        .toMatch(/Migration status: completed/);
      for (const command of monitorCommands(text, "destination's monitor"))
        await monitor(hosts.host2, command);
      await expectMoved();
    },
  },
];

const mine = Object.entries(TREATMENTS).flatMap(([key, treatment]) =>
  "runBy" in treatment && treatment.runBy === "test/e2e/documents.test.ts" ? [key] : [],
);

test("blocks that are said to be run here are", () => {
  expect(SCENES.map(({ block }) => block).sort()).toEqual(mine.sort());
});

describe.skipIf(whyNot !== undefined)("the commands of the documents", { timeout: TIMEOUT_MS }, () => {
  beforeAll(async () => {
    hosts = await openDocumentHosts(qemu!);
  }, TIMEOUT_MS);
  afterAll(() => hosts?.remove());
  afterEach(async () => {
    for (const each of running.values()) await each.stop();
    for (const host of [hosts.host1, hosts.host2]) await host.run("rm -rf /run/vm* /run/deltavee");
  });

  test.each(SCENES.map((scene) => [scene.block, scene] as const))("%s", async (_, scene) => {
    running = new Map();
    ended = new Map();
    await scene.given?.();
    const waiting: Running[] = [];
    const treatment = TREATMENTS[scene.block]!;
    const except = ("except" in treatment ? treatment.except : undefined) ?? {};
    for (const { host, command } of commandsOf(textOf(scene.block))) {
      if (Object.hasOwn(except, command)) continue;
      const [, manner = {}] =
        Object.entries(scene.manners ?? {}).find(([beginning]) => command.startsWith(beginning)) ?? [];
      await manner.before?.();
      const at = hosts[manner.host ?? host];
      const words = Object.entries(manner.words?.() ?? {});
      const actual = words.reduce((text, [word, by]) => text.replaceAll(word, by), command);
      if (STAYS.test(command)) {
        const started = await start(at, actual);
        if (ENDS_BY_ITSELF.test(command)) waiting.push(started);
      } else {
        const end = await at.run(actual, await manner.input?.());
        expect(manner.codes ?? [0], `${command}: ${end.stderr}${end.stdout}`).toContain(end.code);
        ended.set(command, end);
      }
    }
    await scene.expected();
    for (const each of waiting) expect(await each.ended).toMatchObject({ code: 0 });
  });
});

function textOf(block: string): string {
  const found = DOCUMENTS.flatMap(blocksOf).find(({ key }) => key === block);
  if (found === undefined) throw new Error(`No such block: ${block}`);
  return found.text;
}

/** "# source's monitor: a; b", "# destination's monitor, when ...: c". */
function monitorCommands(text: string, whose: string): string[] {
  const [, commands] = new RegExp(`^# ${whose}.*?: (.*)$`, "m").exec(text) ?? [];
  return commands!.split("; ");
}

async function start(host: DocumentHost, command: string): Promise<Running> {
  const started = await host.startAndWait(command);
  running.set(command, started);
  return started;
}

function outputOf(beginning: string): string {
  const [, end] = [...ended].find(([command]) => command.startsWith(beginning))!;
  return `${end.stdout}${end.stderr}`;
}

async function shownCode(): Promise<string> {
  const [, listener] = [...running].find(([command]) => command.startsWith("deltavee pair --listen"))!;
  const { text } = await listener.output.waitFor(({ text }) => /^\w{4}(-\w{4}){3}$/.test(text), "a code", {
    timeoutMs: 60_000,
  });
  return `${text}\n`;
}

/** A VM of the reader's own, at work, with its monitor at /run/vm.qmp. */
async function guest(): Promise<void> {
  await start(hosts.host1, `qemu-system-x86_64 ${READERS_VM} -qmp unix:/run/vm.qmp,server=on,wait=off`);
  await expect.poll(() => serial(hosts.host1), { timeout: 60_000 }).toMatch(/^HB \d+/m);
}

async function waitingQemu(): Promise<void> {
  await start(
    hosts.host2,
    `qemu-system-x86_64 ${READERS_VM} -incoming defer -qmp unix:/run/vm.qmp,server=on,wait=off`,
  );
}

/** VMs of a service's hosts: each at work at host1, and awaited at host2. */
async function vms(...names: string[]): Promise<void> {
  for (const name of names) {
    const options = machineOptions(name, `/run/vms/${name}.log`);
    const monitor = `-qmp unix:/run/vms/${name}.qmp,server=on,wait=off`;
    await start(hosts.host1, `qemu-system-x86_64 ${options} ${monitor}`);
    await start(hosts.host2, `qemu-system-x86_64 ${options} -incoming defer ${monitor}`);
  }
}

/** And are shut down at host1 by whoever looks after them, monitors and all. */
async function expectLeft(...names: string[]): Promise<void> {
  for (const name of names) {
    expect(await query(hosts.host2, `/run/vms/${name}.qmp`)).toBe("running");
    expect(await query(hosts.host1, `/run/vms/${name}.qmp`)).toBe("postmigrate");
    await quit(hosts.host1, `/run/vms/${name}.qmp`);
  }
}

async function withMonitor<Result>(
  host: DocumentHost,
  path: string,
  use: (qmp: QmpClient) => Promise<Result>,
): Promise<Result> {
  const qmp = await QmpClient.connect({ kind: "unix", path: host.at(path) });
  try {
    return await use(qmp);
  } finally {
    qmp.close();
  }
}

function query(host: DocumentHost, path: string): Promise<string> {
  return withMonitor(host, path, async (qmp) => String((await qmp.execute("query-status")).status));
}

async function quit(host: DocumentHost, path: string): Promise<void> {
  await withMonitor(host, path, async (qmp) => {
    await qmp.execute("quit").catch(() => {});
  });
  await expect.poll(() => readdirSync(host.at("/run/vms"))).not.toContain(path.split("/").at(-1));
}

async function monitor(host: DocumentHost, command: string): Promise<string> {
  return withMonitor(host, OWN_MONITOR, async (qmp) =>
    String(await qmp.execute("human-monitor-command", { "command-line": command })),
  );
}

function serial(host: DocumentHost): string {
  try {
    return readFileSync(host.at(SERIAL_LOG), "latin1");
  } catch {
    return "";
  }
}

/** What the guest has said at host1 goes on at host2, in the middle of a line, and no count is missing. */
async function expectMoved(): Promise<void> {
  await expect.poll(() => serial(hosts.host2), { timeout: 60_000 }).toMatch(/^HB \d+.*\nHB \d+.*\n/m);
  const counters = [...`${serial(hosts.host1)}${serial(hosts.host2)}`.matchAll(/^HB (\d+) .*$/gm)];
  expect(counters.map(([, counter]) => Number(counter))).toEqual(counters.map((_, index) => index));
}

/** The guest goes on at host1, and has never been anywhere else. */
async function expectStillHere(): Promise<void> {
  const before = serial(hosts.host1).length;
  await expect.poll(() => serial(hosts.host1).length, { timeout: 60_000 }).toBeGreaterThan(before);
  expect(await query(hosts.host1, "/run/vm.qmp")).toBe("running");
  expect(serial(hosts.host2)).toBe("");
}

/** A migration whose `deltavee migrate` was killed half way. */
async function cutOff(): Promise<void> {
  await guest();
  await cutOffAgain();
}

async function cutOffAgain(): Promise<void> {
  for (const [command, each] of running) {
    if (!command.startsWith("qemu") || command.includes("-incoming")) {
      await each.stop();
      running.delete(command);
    }
  }
  await hosts.host2.run("rm -f /run/vm.log /run/vm.qmp");
  await waitingQemu();
  await start(hosts.host2, "deltavee receive --listen 0.0.0.0:4445 --qmp /run/vm.qmp");
  const migrate = await hosts.host1.start(
    "exec deltavee migrate --qmp /run/vm.qmp --to deltavee://host2:4445 --max-bandwidth 100kbit",
  );
  running.set("migrate", migrate);
  await expect.poll(() => stateFile()?.phase, { timeout: 60_000 }).toBe("iterating");
  migrate.kill("SIGKILL");
  await migrate.ended;
}

function stateFile(): { session: string; phase: string } | undefined {
  try {
    const folder = hosts.host1.at("/run/deltavee");
    const name = readdirSync(folder).find((each) => each.endsWith("-source.json"));
    return name === undefined ? undefined : JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
  } catch {
    // Not there yet.
    return undefined;
  }
}

function session(): string {
  return stateFile()!.session;
}

function writeTrace(path: string): void {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), { contents: false });
  writer.ramBlocks([{ idstr: "pc.ram", pageCount: 4 }], 4096);
  writer.codec("xbzrle");
  const page = new Uint8Array(4096).fill(1);
  for (let index = 0; index < 4; index++) writer.observe(0, index, 0, PageClass.RAW, 0, page, 0);
  for (let index = 0; index < 4; index++) writer.observe(0, index, 1, PageClass.DELTA, 16, page, 0);
  writer.end();
  writeFileSync(path, Buffer.concat(chunks));
}
