// The blocks of shell in the documents for users, and of each what holds it to what it says: the test that runs it, or why
// none does. src/cli/help.test.ts fails on a block of which nothing is said here.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "./package-root.ts";

/** Documents for users; decisions tell of what was once. */
export const DOCUMENTS: readonly string[] = [
  "README.md",
  "SECURITY.md",
  ...readdirSync(join(PACKAGE_ROOT, "docs")).flatMap((name) =>
    name.endsWith(".md") ? [`docs/${name}`] : [],
  ),
];

export interface DocumentBlock {
  /** "docs/lab.md, How to run it"; a further one under the same heading: "docs/lab.md, How to run it (2)". */
  readonly key: string;
  readonly document: string;
  readonly text: string;
}

/** Fenced as shell, or indented and a command. */
export function blocksOf(document: string): DocumentBlock[] {
  const text = readFileSync(join(PACKAGE_ROOT, document), "utf8");
  const pattern = /^#+ (.*)\n|^```(\w*)\n([\s\S]*?)^```$|^((?: {4}(?:(?:sudo )?npm|npx|deltavee) .*\n)+)/gm;
  const blocks: DocumentBlock[] = [];
  const count = new Map<string, number>();
  let heading = "";
  for (const [, title, language, fenced, indented] of text.matchAll(pattern)) {
    if (title !== undefined) heading = title;
    const isShell = indented !== undefined || ["sh", "bash", "console"].includes(language ?? "");
    if (!isShell) continue;
    const number = (count.get(heading) ?? 0) + 1;
    count.set(heading, number);
    const key = `${document}, ${heading}${number > 1 ? ` (${number})` : ""}`;
    blocks.push({ key, document, text: indented ?? fenced! });
  }
  return blocks;
}

export interface DocumentCommand {
  /** Who types it: as the prompt ("host2$ ") or the comment above it ("# destination host") has it. */
  readonly host: "host1" | "host2";
  /** Without comments; lines that go on are joined. */
  readonly command: string;
}

/** Where nobody is named, it is host1. */
export function commandsOf(text: string): DocumentCommand[] {
  let current: DocumentCommand["host"] = "host1";
  return text
    .replace(/\s*\\\n\s*/g, " ")
    .split("\n")
    .flatMap((line) => {
      if (/^# destination host/.test(line)) current = "host2";
      else if (/^# source host/.test(line)) current = "host1";
      const [, prompt, command] = /^\s*(?:(host[12])\$ )?(.*?)(?:\s*(?<!\S)#.*)?$/.exec(line) ?? [];
      if (!command) return [];
      return [{ host: (prompt as DocumentCommand["host"] | undefined) ?? current, command }];
    });
}

export type Treatment =
  /** Run as it stands, by this test; `except`: but for these commands, and why. */
  | { readonly runBy: string; readonly except?: Readonly<Record<string, string>> }
  /** Its commands are those of another block. */
  | { readonly sameAs: string }
  /** Not run as it stands: why not, and what comes closest. */
  | { readonly notRun: string };

const DOCUMENTS_TEST = { runBy: "test/e2e/documents.test.ts" };
const LAB = "an image of some minutes, runs of minutes to hours: test/e2e/lab.test.ts makes short ones";
const PACKAGE_TEST = { runBy: "test/e2e/package.test.ts" };
const LIBVIRT = {
  notRun:
    "the system's libvirt on two hosts, and ssh between them: test/e2e/libvirt.test.ts runs the same between two session daemons",
};
const BENCHMARKS = { notRun: "benchmarks of minutes to hours; what they measure with has unit tests" };

export const TREATMENTS: Readonly<Record<string, Treatment>> = {
  "README.md, Two commands": {
    notRun: "npm test is what runs all this; npm start is run by test/e2e/demo.test.ts",
  },
  "README.md, Moving a VM of your own": DOCUMENTS_TEST,
  "README.md, Moving a VM of your own (2)": DOCUMENTS_TEST,
  "README.md, The lab": {
    ...DOCUMENTS_TEST,
    except: {
      "deltavee lab run video --method vanilla,tunnel --link 100mbit --rtt 20ms --runs 5": LAB,
      "deltavee lab report": "there are no records without runs",
    },
  },
  "README.md, Working on it": { notRun: "the tests themselves, and benchmarks" },
  "SECURITY.md, Fuzzing": { notRun: "hours: npm test runs the same with fewer inputs" },
  "docs/benchmarks.md, The parts: `npm run bench`": BENCHMARKS,
  "docs/benchmarks.md, Against QEMU's own methods: `npm run bench:peers`": BENCHMARKS,
  "docs/benchmarks.md, Promises of a downtime: `npm run bench:downtime`": BENCHMARKS,
  "docs/choosing-a-mode.md, Choosing a mode": { sameAs: "README.md, Moving a VM of your own" },
  "docs/choosing-a-mode.md, Choosing a mode (2)": { sameAs: "README.md, Moving a VM of your own (2)" },
  "docs/choosing-a-mode.md, A link that is faster than a gigabit": {
    notRun: "a setting of the system's: src/cli/doctor/host.test.ts holds the advice to the same words",
  },
  "docs/choosing-a-mode.md, A link that loses packets": {
    notRun:
      "a route of the system's: test/e2e/lab-hosts.test.ts sees that connections over one like it are BBR's",
  },
  "docs/choosing-a-mode.md, Who may come in": DOCUMENTS_TEST,
  "docs/choosing-a-mode.md, Who may come in (2)": { sameAs: "docs/quick-start.md, Between two hosts" },
  "docs/how-it-works.md, What happens when something fails": DOCUMENTS_TEST,
  "docs/lab.md, How to run it": { notRun: LAB },
  "docs/libvirt.md, Tunnel, TCP": LIBVIRT,
  "docs/libvirt.md, Tunnel, unix sockets": LIBVIRT,
  "docs/libvirt.md, Direct: nothing of Deltavee's at the destination": LIBVIRT,
  "docs/libvirt.md, Others": DOCUMENTS_TEST,
  "docs/live-page.md, The live page": DOCUMENTS_TEST,
  "docs/live-page.md, Who can see it": { notRun: "sshd of another host, and a browser here" },
  "docs/operations.md, The service": DOCUMENTS_TEST,
  "docs/operations.md, The service (2)": DOCUMENTS_TEST,
  "docs/operations.md, systemd": {
    ...DOCUMENTS_TEST,
    except: {
      "systemctl daemon-reload && systemctl enable --now deltavee":
        "a host that systemd runs: packaging/deltavee.service has a test of its own",
    },
  },
  "docs/page-cache.md, Which policy, measured": BENCHMARKS,
  "docs/page-cache.md, With your own guest": DOCUMENTS_TEST,
  "docs/quick-start.md, Install, and see whether this host is ready": PACKAGE_TEST,
  "docs/quick-start.md, A VM, and a QEMU that waits for it": PACKAGE_TEST,
  "docs/quick-start.md, A VM, and a QEMU that waits for it (2)": PACKAGE_TEST,
  "docs/quick-start.md, Move it": PACKAGE_TEST,
  "docs/quick-start.md, Move it (2)": PACKAGE_TEST,
  "docs/quick-start.md, Move it (3)": PACKAGE_TEST,
  "docs/quick-start.md, End it": PACKAGE_TEST,
  "docs/quick-start.md, Between two hosts": DOCUMENTS_TEST,
  "docs/quick-start.md, Between two hosts (2)": DOCUMENTS_TEST,
  "docs/quick-start.md, Between two hosts (3)": DOCUMENTS_TEST,
  "docs/reliability.md, status and recover": DOCUMENTS_TEST,
  "docs/reliability.md, A part of the guest on each side": {
    notRun:
      "a connection that broke in the middle: test/e2e/postcopy-crash.test.ts runs the same on a unix socket",
  },
};
