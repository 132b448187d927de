// The guest's Debian: which packages are in it (lab/guest/packages), and a root file system made of them by mmdebstrap.
// Knows nothing of what the lab adds.

import { readFileSync } from "node:fs";
import { UsageError } from "../../base/errors.ts";
import { startProcess } from "../host-process.ts";

export const SUITE = "bookworm";
/** LMbench is in non-free. */
const COMPONENTS = "main non-free";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const SOURCES_FILE = "/etc/apt/sources.list.d/debian.sources";
const MIRROR = { debian: "http://deb.debian.org/debian", security: "http://deb.debian.org/debian-security" };
const LEFT_OUT = ["doc", "man", "locale", "info", "lintian"].map((name) => `/usr/share/${name}/*`);

export interface PackageList {
  readonly binary: readonly string[];
  /** Names of source packages. */
  readonly source: readonly string[];
}

/** @throws Error for a line that names no package */
export function parsePackages(text: string): PackageList {
  const lines = text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter(Boolean);
  for (const line of lines) {
    if (!/^(src:)?[a-z0-9][a-z0-9+.-]+$/.test(line)) throw new Error(`"${line}" names no package of Debian`);
  }
  return {
    binary: lines.filter((line) => !line.startsWith("src:")),
    source: lines.filter((line) => line.startsWith("src:")).map((line) => line.slice("src:".length)),
  };
}

/** What apt is told to get packages from: this host's own mirror of Debian, if it is known. */
export function sourcesList(debianSources: string | undefined): string {
  const mirror = (suite: string, otherwise: string): string => {
    const stanzas = (debianSources ?? "").split(/\n\s*\n/);
    const stanza = stanzas.find((text) => new RegExp(`^Suites:.*\\b${suite}(\\s|$)`, "m").test(text));
    return /^URIs:\s*(\S+)/m.exec(stanza ?? "")?.[1] ?? otherwise;
  };
  const [signed, debian] = [`[signed-by=${KEYRING}]`, mirror(SUITE, MIRROR.debian)];
  const security = mirror(`${SUITE}-security`, MIRROR.security);
  return [
    `deb ${signed} ${debian} ${SUITE} ${COMPONENTS}`,
    `deb-src ${signed} ${debian} ${SUITE} main`,
    `deb ${signed} ${security} ${SUITE}-security ${COMPONENTS}`,
    "",
  ].join("\n");
}

/** What decides what is in the root file system, beside the archive itself. */
export function recipe({ binary, source }: PackageList): string[] {
  const unpack = [
    "mkdir -p /lab/src && cd /lab/src",
    `apt-get -q source --download-only -o APT::Sandbox::User=root ${source.join(" ")}`,
    'for archive in *.orig.tar.*; do tar -xf "$archive"; done',
    "rm -f *.tar.* *.dsc *.asc",
  ];
  return [
    ...["--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists"],
    '--aptopt=APT::Install-Recommends "false"',
    // A root file system that is not whole is thrown away: nothing has to be safe on the disk meanwhile.
    "--dpkgopt=force-unsafe-io",
    ...LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`),
    `--include=${binary.join(",")}`,
    ...(source.length === 0 ? [] : [`--customize-hook=chroot "$1" sh -ec '${unpack.join("\n")}'`]),
    // Package files are of no use in the guest, and lists of packages are large.
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
  ];
}

/**
 * Makes it in `root`, which must not be there. When `signal` aborts, the making ends, and this rejects with its reason.
 * @throws UsageError where mmdebstrap is missing
 */
export async function makeRoot(
  root: string,
  packages: PackageList,
  progress: (line: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  const child = await startProcess("mmdebstrap", [...recipe(packages), SUITE, root, "-"], {
    onStderr: (chunk) => {
      for (const line of chunk.toString().split("\n")) if (/^I: /.test(line)) progress(line.slice(3));
    },
  });
  const stop = () => void child.stop();
  signal?.addEventListener("abort", stop, { once: true });
  // It may have been aborted while the process was started.
  if (signal?.aborted === true) stop();
  child.stdin.end(sourcesList(readIfThere(SOURCES_FILE)));
  const { code, signal: killedBy } = await child.exited;
  signal?.removeEventListener("abort", stop);
  signal?.throwIfAborted();
  if (code === 127) {
    throw new UsageError(
      "The guest is made of Debian's packages by mmdebstrap, which is not here: apt-get install mmdebstrap",
    );
  }
  if (code !== 0) throw new Error(`mmdebstrap failed (${killedBy ?? `code ${code}`}): ${child.stderrTail()}`);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Another Debian, or none: its own mirrors have the same packages.
    return undefined;
  }
}
