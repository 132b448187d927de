// The ways to move a VM that are compared: QEMU's own, each set up as its documentation says, and Deltavee's
// two modes, as an operator starts them. What is measured around them is not their business.

import { setTimeout as sleep } from "node:timers/promises";
import { DeltaveeError } from "../src/base/errors.ts";
import type { MigrationCapability, MigrationParameters } from "../src/hypervisor/qemu/qmp-types.ts";
import { destinationFor, listeningAddress, type Mode } from "../test/support/migration.ts";
import { type CliRun, runCli } from "../test/support/processes.ts";
import type { QemuVm } from "../test/support/qemu-vm.ts";
import type { BenchLink } from "./network.ts";

/** QEMU's default, and Deltavee's. */
export const DOWNTIME_MS_MAX = 300;
/** QEMU's own pacing is out of the way: the link is what limits. */
const UNLIMITED_BYTES_PER_SECOND = 10e9;
const CACHE_BYTES_DEFAULT = 64 * 1024 ** 2;
/** More than all of the guest's RAM, in a power of two as QEMU wants it. */
const CACHE_BYTES_FULL = 1024 ** 3;
const CANCEL_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
/** Of `deltavee migrate`, when the operator has given up. */
const EXIT_CANCELLED = 130;

export interface Setting {
  source: QemuVm;
  /** Started with `incoming: "defer"`. */
  destination: QemuVm;
  link: BenchLink;
  /** A migration that has not ended by itself after this long is cancelled. */
  limitMs: number;
  /** Where Deltavee's run record goes, if anywhere. */
  recordFile: string | undefined;
  /** A process of the method's own has been started. */
  started: (side: "source" | "destination", run: CliRun) => void;
}

export interface Method {
  readonly name: string;
  readonly title: string;
  /** Prepares both sides, which is not part of the migration, and returns the migration itself. */
  prepare(setting: Setting): Promise<Migrate>;
}

/** Moves the VM. Resolves to whether it has arrived; if not, it was cancelled and runs on at the source. */
export type Migrate = () => Promise<boolean>;

export const netnsOption = (netns: string | undefined) => (netns === undefined ? {} : { netns });
const incomingUri = (link: BenchLink) => `tcp:${link.destinationAddress}:${link.destinationPort}`;

function qemuMethod(
  name: string,
  title: string,
  wanted: readonly MigrationCapability[],
  parameters: MigrationParameters = {},
  begun: (source: QemuVm) => Promise<void> = async () => {},
): Method {
  return {
    name,
    title,
    prepare: async ({ source, destination, link, limitMs }) => {
      const { qmp } = source;
      const capabilities = ["events" as const, ...wanted].map((capability) => ({ capability, state: true }));
      for (const side of [qmp, destination.qmp]) {
        await side.execute("migrate-set-capabilities", { capabilities });
        await side.execute("migrate-set-parameters", parameters);
      }
      await qmp.execute("migrate-set-parameters", {
        "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
        "downtime-limit": DOWNTIME_MS_MAX,
      });
      await destination.qmp.execute("migrate-incoming", { uri: incomingUri(link) });
      return async () => {
        const end = endOf(source, limitMs);
        await qmp.execute("migrate", { uri: incomingUri(link) });
        await Promise.race([begun(source), end]);
        const status = await end;
        if (status === "completed") return true;
        if (status !== "late") throw new Error(`QEMU's migration has ${status}`);
        const cancelled = endOf(source, CANCEL_TIMEOUT_MS);
        await qmp.execute("migrate_cancel");
        if ((await cancelled) !== "cancelled") throw new Error("QEMU did not cancel its migration");
        return false;
      };
    },
  };
}

/** How the migration ends, or "late". To be called before it is started. */
async function endOf({ qmp }: QemuVm, limitMs: number): Promise<string> {
  const isEnd = (status: string) => ["completed", "failed", "cancelled"].includes(status);
  try {
    return (await qmp.waitForEvent("MIGRATION", ({ data }) => isEnd(data.status), limitMs)).data.status;
  } catch (thrown) {
    if (thrown instanceof DeltaveeError && thrown.code === "HYPERVISOR_FAILED") return "late";
    throw thrown;
  }
}

/** Lets the guest run at the destination after the first pass; pages that it misses there are fetched. */
async function startPostCopy({ qmp }: QemuVm): Promise<void> {
  for (;;) {
    const { status, ram } = await qmp.execute("query-migrate");
    if (status === "active" && ram !== undefined && ram["dirty-sync-count"] > 1) break;
    if (status !== undefined && ["completed", "failed", "cancelled"].includes(status)) return;
    await sleep(POLL_MS);
  }
  await qmp.execute("migrate-start-postcopy");
}

/** `migrateArguments`: more of them for `deltavee migrate`. */
export function deltaveeMethod(mode: Mode, title: string, migrateArguments: readonly string[] = []): Method {
  return {
    name: mode,
    title,
    prepare: async ({ source, destination, link, limitMs, recordFile, started }) => {
      let receive: CliRun | undefined;
      let to = incomingUri(link);
      if (mode === "direct") {
        await destination.qmp.execute("migrate-incoming", { uri: to });
      } else {
        const listen = `${link.destinationAddress}:${link.destinationPort}`;
        const commandArguments = [
          ...["receive", "--listen", listen, "--qmp", destination.toolQmp.path, "--json"],
          "--insecure-plaintext",
        ];
        receive = await runCli(commandArguments, netnsOption(link.destinationNetns));
        started("destination", receive);
        to = destinationFor(mode, await listeningAddress(receive));
      }
      return async () => {
        const migrate = await runCli(
          [
            ...["migrate", "--qmp", source.toolQmp.path, "--to", to, "--quiet"],
            ...(mode === "tunnel" ? ["--insecure-plaintext"] : []),
            ...["--max-downtime", `${DOWNTIME_MS_MAX}ms`],
            ...(recordFile === undefined ? [] : ["--record", recordFile]),
            ...migrateArguments,
          ],
          netnsOption(link.sourceNetns),
        );
        started("source", migrate);
        const timer = setTimeout(() => migrate.kill("SIGINT"), limitMs);
        const { code } = await migrate.exited;
        clearTimeout(timer);
        if (code === EXIT_CANCELLED) return false;
        if (code !== 0)
          throw new Error(`deltavee migrate ended with exit code ${code}: ${migrate.stderrTail()}`);
        await receive?.exited;
        return true;
      };
    },
  };
}

export const METHODS: readonly Method[] = [
  qemuMethod("vanilla", "QEMU: pre-copy", []),
  qemuMethod("xbzrle-64m", "QEMU: xbzrle, 64 MiB cache", ["xbzrle"], {
    "xbzrle-cache-size": CACHE_BYTES_DEFAULT,
  }),
  qemuMethod("xbzrle-full", "QEMU: xbzrle, full cache", ["xbzrle"], {
    "xbzrle-cache-size": CACHE_BYTES_FULL,
  }),
  qemuMethod("multifd-zstd", "QEMU: multifd + zstd", ["multifd"], {
    "multifd-channels": 2,
    "multifd-compression": "zstd",
  }),
  qemuMethod("postcopy", "QEMU: post-copy after the first pass", ["postcopy-ram"], {}, startPostCopy),
  deltaveeMethod("direct", "Deltavee: direct"),
  deltaveeMethod("tunnel", "Deltavee: tunnel"),
];

/** The method that bytes and times are given as ratios of: the best that QEMU has for this case. */
export const REFERENCE_METHOD = "xbzrle-full";
