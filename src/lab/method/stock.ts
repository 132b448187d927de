// The ways of QEMU alone: pre-copy as it comes, with XBZRLE and its cache in three sizes, with multifd and zstd, with
// auto-converge, and post-copy. Each is set up as QEMU's documentation says, on whatever QEMU there is: what it has is
// found by asking it.

import { DeltaveeError, QmpCommandError } from "../../base/errors.ts";
import { formatMs } from "../../base/units.ts";
import type {
  MigrationCapability,
  MigrationParameters,
  MigrationStatus,
  QmpEvent,
} from "../../hypervisor/qemu/qmp-types.ts";
import { cannot, type Method, type MethodLink, type MethodSetting, type MigrationEnd } from "./method.ts";

/** QEMU's own pacing is out of the way: the link is what limits. */
const UNLIMITED_BYTES_PER_SECOND = 10e9;
/** QEMU takes no more: whatever is left, the guest is stopped for it. */
const DOWNTIME_LIMIT_MS_MAX = 2_000_000;
const CACHE_BYTES_DEFAULT = 64 * 1024 ** 2;
const CANCEL_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
const ENDS: ReadonlySet<MigrationStatus> = new Set(["completed", "failed", "cancelled"]);

interface StockMethod {
  name: string;
  title: string;
  sends?: Method["sends"];
  /** On both sides. */
  capabilities?: readonly MigrationCapability[];
  /** Which the destination need not know of. */
  sourceCapabilities?: readonly MigrationCapability[];
  /** On both sides, after the capabilities. */
  parameters?: (memoryBytes: number) => MigrationParameters;
  /** Lets the guest run at the destination after the first pass; pages that it misses there are fetched. */
  isPostcopy?: true;
}

/** Which a power of two must be, as QEMU wants it, and as Proxmox rounds it: no more than the share. */
function cacheBytes(shareBytes: number): number {
  return 2 ** Math.floor(Math.log2(shareBytes));
}

const xbzrle = (name: string, what: string, bytes: (memoryBytes: number) => number): StockMethod => ({
  name,
  title: `QEMU: xbzrle, ${what}`,
  sends: "delta",
  capabilities: ["xbzrle"],
  parameters: (memoryBytes) => ({ "xbzrle-cache-size": bytes(memoryBytes) }),
});

export const STOCK_METHODS: readonly Method[] = [
  { name: "vanilla", title: "QEMU: pre-copy" },
  xbzrle("xbzrle-64m", "64 MiB cache", () => CACHE_BYTES_DEFAULT),
  xbzrle("xbzrle-tenth", "cache of a tenth of RAM", (memoryBytes) => cacheBytes(memoryBytes / 10)),
  // Video memory and firmware are moved as well: the next power of two holds all.
  xbzrle("xbzrle-full", "full cache", (memoryBytes) => cacheBytes(memoryBytes) * 2),
  {
    name: "multifd-zstd",
    title: "QEMU: multifd + zstd",
    capabilities: ["multifd"] as const,
    parameters: () => ({ "multifd-channels": 2, "multifd-compression": "zstd" }),
  },
  {
    name: "auto-converge",
    title: "QEMU: auto-converge",
    sourceCapabilities: ["auto-converge"] as const,
  },
  {
    name: "postcopy",
    title: "QEMU: post-copy after the first pass",
    capabilities: ["postcopy-ram"] as const,
    isPostcopy: true as const,
  },
].map(stockMethod);

function stockMethod(kind: StockMethod): Method {
  return {
    name: kind.name,
    title: kind.title,
    mode: "stock",
    sends: kind.sends ?? "standard",
    prepare: async (setting) => {
      const { source, destination, link } = setting;
      await setUp(kind, "source", setting);
      await setUp(kind, "destination", setting);
      await source.qmp.execute("migrate-set-parameters", {
        "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
        "downtime-limit": setting.downtimeMsMax,
      });
      await destination.qmp.execute("migrate-incoming", { uri: incomingUri(link) });
      return () => new StockMigration(kind, setting).run();
    },
  };
}

export const incomingUri = (link: MethodLink): string =>
  `tcp:${link.destinationAddress}:${link.destinationPort}`;

/** @throws DeltaveeError HYPERVISOR_INCOMPATIBLE */
async function setUp(
  kind: StockMethod,
  side: "source" | "destination",
  { memoryBytes, ...setting }: MethodSetting,
): Promise<void> {
  const { qmp } = setting[side];
  const { qemu } = await qmp.execute("query-version");
  const version = `${qemu.major}.${qemu.minor}`;
  const wanted = [
    ...(kind.capabilities ?? []),
    ...(side === "source" ? (kind.sourceCapabilities ?? []) : []),
  ];
  const known = new Set(
    (await qmp.execute("query-migrate-capabilities")).map(({ capability }) => capability),
  );
  const missing = wanted.find((capability) => !known.has(capability));
  if (missing !== undefined) throw cannot(kind.name, version, `it has no capability ${missing}`);
  try {
    const capabilities = ["events" as const, ...wanted].map((capability) => ({ capability, state: true }));
    await qmp.execute("migrate-set-capabilities", { capabilities });
    if (kind.parameters !== undefined)
      await qmp.execute("migrate-set-parameters", kind.parameters(memoryBytes));
  } catch (thrown) {
    // It knows the name, and yet was built without it, or this host does not allow it.
    if (!(thrown instanceof QmpCommandError)) throw thrown;
    throw cannot(kind.name, version, `it refuses to at the ${side}`, thrown);
  }
}

/** One migration, from the command to its end. */
class StockMigration {
  readonly #kind: StockMethod;
  readonly #setting: MethodSetting;
  #startMs = 0;
  #forcedAtMs: number | undefined;
  #isOver = false;
  #postcopyAsked = false;

  constructor(kind: StockMethod, setting: MethodSetting) {
    this.#kind = kind;
    this.#setting = setting;
  }

  async run(): Promise<MigrationEnd> {
    const { clock, forceAfterMs, limitMs, source, link, signal } = this.#setting;
    const timers: (() => void)[] = [];
    // What fails while the migration goes on ends it here, whoever noticed.
    let fail: (error: unknown) => void = () => {};
    const failed = new Promise<never>((_resolve, reject) => {
      fail = reject;
    });
    failed.catch(() => {});
    const abort = () => fail(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted === true) abort();
    const ended = this.#nextEnd();
    const late = new Promise<"late">((resolve) => {
      timers.push(clock.after(limitMs, () => resolve("late")));
    });
    this.#startMs = clock.nowMs();
    if (forceAfterMs !== undefined)
      timers.push(clock.after(forceAfterMs, () => void this.#force().catch(fail)));
    try {
      await source.qmp.execute("migrate", { uri: incomingUri(link) });
      if (this.#kind.isPostcopy === true) void this.#postcopyAfterFirstPass().catch(fail);
      const end = await Promise.race([ended, late, failed]);
      this.#isOver = true;
      if (end !== "completed" && end !== "late") {
        const { "error-desc": why } = await source.qmp.execute("query-migrate");
        throw new DeltaveeError(
          "MIGRATION_FAILED",
          `QEMU's migration has ${end}${why === undefined ? "" : `: ${why}`}`,
        );
      }
      const arrived = end === "completed" || (await this.#giveUp());
      return {
        arrived,
        ...(this.#forcedAtMs === undefined ? {} : { forcedAtMs: this.#forcedAtMs }),
      };
    } finally {
      this.#isOver = true;
      signal?.removeEventListener("abort", abort);
      for (const cancel of timers) cancel();
    }
  }

  /** To be called before what causes it. */
  #nextEnd(): Promise<MigrationStatus> {
    const { qmp } = this.#setting.source;
    const ended = new Promise<MigrationStatus>((resolve, reject) => {
      const release = qmp.on("MIGRATION", ({ data }: QmpEvent<"MIGRATION">) => {
        if (!ENDS.has(data.status)) return;
        release();
        resolve(data.status);
      });
      void qmp.lost.then(reject);
    });
    // It may come when nobody waits for it any more.
    ended.catch(() => {});
    return ended;
  }

  /** The operator's patience has ended: any downtime will do. Post-copy has its own way to end now. */
  async #force(): Promise<void> {
    if (this.#isOver || this.#postcopyAsked) return;
    this.#forcedAtMs = this.#setting.clock.nowMs() - this.#startMs;
    if (this.#kind.isPostcopy === true) {
      await this.#startPostcopy();
      return;
    }
    const { qmp } = this.#setting.source;
    await qmp.execute("migrate-set-parameters", { "downtime-limit": DOWNTIME_LIMIT_MS_MAX });
  }

  async #postcopyAfterFirstPass(): Promise<void> {
    const { clock, source } = this.#setting;
    while (!this.#isOver && !this.#postcopyAsked) {
      const { status, ram } = await source.qmp.execute("query-migrate");
      if (status !== undefined && ENDS.has(status)) return;
      if (status === "active" && ram !== undefined && ram["dirty-sync-count"] > 1) {
        await this.#startPostcopy();
        return;
      }
      await new Promise<void>((resolve) => void clock.after(POLL_MS, resolve));
    }
  }

  async #startPostcopy(): Promise<void> {
    if (this.#postcopyAsked) return;
    this.#postcopyAsked = true;
    await this.#setting.source.qmp.execute("migrate-start-postcopy");
  }

  /** Whether it has arrived all the same, because it ended while it was being cancelled: as with Deltavee. */
  async #giveUp(): Promise<boolean> {
    const { clock, source, limitMs } = this.#setting;
    if (this.#postcopyAsked) {
      const text = `Post-copy has not ended within ${formatMs(limitMs)}, and there is no way back`;
      throw new DeltaveeError("MIGRATION_FAILED", text);
    }
    const cancelled = this.#nextEnd();
    let release: () => void = () => {};
    const late = new Promise<"late">((resolve) => {
      release = clock.after(CANCEL_TIMEOUT_MS, () => resolve("late"));
    });
    try {
      await source.qmp.execute("migrate_cancel");
      const end = await Promise.race([cancelled, late]);
      if (end === "cancelled" || end === "completed") return end === "completed";
      throw new DeltaveeError("MIGRATION_FAILED", `QEMU did not cancel its migration, which has: ${end}`);
    } finally {
      release();
    }
  }
}
