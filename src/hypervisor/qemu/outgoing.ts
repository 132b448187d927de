// A QEMU that gives its VM away: sets the migration up over QMP, takes its stream from a unix socket of ours,
// and reports how it ended. QEMU keeps the guest until it says "completed"; every other end leaves the guest
// running (or paused, if it was) here. Facts: QEMU's qapi/migration.json, 7.2 to 10.x.

import type { Socket } from "node:net";
import { systemClock } from "../../base/clock.ts";
import { DeltaveeError, QmpCommandError, toError } from "../../base/errors.ts";
import type { Channel, OutgoingEnd, OutgoingStatus, OutgoingVm, StoppedRam } from "../../engine/ports.ts";
import { type Listener, listen } from "../../link/address.ts";
import { SocketChannel } from "../../link/socket-channel.ts";
import { DirtyForecast } from "./dirty-forecast.ts";
import { Guard } from "./guard.ts";
import { type GuestMemoryPlace, locateGuestMemory } from "./guest-memory.ts";
import { MigrationSocket } from "./migration-socket.ts";
import { type QmpAddress, QmpClient } from "./qmp.ts";
import type { MigrationCapability, MigrationParameters, MigrationStatus } from "./qmp-types.ts";
import { listRamBlocks } from "./ram-map.ts";
import { deathWithoutKvm, lossWithoutKvm, WAYS_ROUND_DEATH } from "./soundness.ts";
import { openStoppedRam } from "./stopped-ram.ts";
import { targetPageBytes } from "./target-pages.ts";

/**
 * Far above any link: pacing is ours, QEMU must never hold back by itself. And a number that nobody types: QEMU's
 * settings that hold it were left behind by a Deltavee that was killed.
 */
const UNLIMITED_BYTES_PER_SECOND = 999_999_999_937;
const CONNECT_TIMEOUT_MS = 10_000;
/** While no MIGRATION event comes QEMU is asked; events may be lost with the capability `events` refused. */
const POLL_EVERY_MS = 500;
/** 0 would make QEMU stop the guest at the end of the first pass, whatever is left (measured). */
const DOWNTIME_LIMIT_MS_MIN = 1;
/** QEMU takes no more. */
const DOWNTIME_LIMIT_MS_MAX = 2_000_000;
/**
 * QEMU stops the guest when less is left than bandwidth times `downtime-limit`. Where the bandwidth can be told
 * to it (8.2 and later) each millisecond is this much, one page of most machines, and the limit counts exactly.
 */
const LIMIT_BYTES_PER_MS = 4096;
/** A limit that differs by less is not worth the words: QEMU goes by it up to 100 ms later in any case. */
const LIMIT_CHANGE_SHARE_MIN = 0.05;
/**
 * QEMU slows vCPUs down by itself, in steps, when it finds at a look for dirty pages that more than this share (%) of
 * what it has sent meanwhile is dirty again. With the least share, and with our percentage as first step, step and
 * most, it is where we want it one or two looks later, a second apart at least.
 */
const THROTTLE_TRIGGER_PERCENTAGE = 1;
/** QEMU has no less. */
const THROTTLE_PERCENTAGE_MIN = 1;
const THROTTLE_PERCENTAGE_MAX = 99;
const CANCEL_TIMEOUT_MS = 20_000;
const RETURN_TIMEOUT_MS = 2000;

/** What a migration through us needs; others that would take RAM out of the main stream are switched off. */
const CAPABILITIES: Readonly<Partial<Record<MigrationCapability, boolean>>> = {
  events: true,
  "return-path": true,
  xbzrle: false,
  multifd: false,
  "postcopy-ram": false,
  // Pages of a post-copy would come on a second connection.
  "postcopy-preempt": false,
  // Until COMMIT a guest in post-copy is taken back from what the source still has, which is all of it.
  "release-ram": false,
  "pause-before-switchover": false,
  // Of other formats, other transports, or another purpose: with one of them QEMU refuses the rest, or the destination does.
  "zero-copy-send": false,
  compress: false,
  "mapped-ram": false,
  "background-snapshot": false,
  "x-colo": false,
  "switchover-ack": true,
};
/** On when the migration may have to end as post-copy. */
const POSTCOPY_CAPABILITY: MigrationCapability = "postcopy-ram";
/** Left as the operator has it, unless we are to slow the guest down. */
const THROTTLE_CAPABILITY: MigrationCapability = "auto-converge";

const THROTTLE_PARAMETERS = [
  "throttle-trigger-threshold",
  "cpu-throttle-initial",
  "cpu-throttle-increment",
  "max-cpu-throttle",
] as const;

/** QEMU's own, for when what the operator had is not known any more. */
const DEFAULT_PARAMETERS: MigrationParameters = {
  "max-bandwidth": 128 * 1024 * 1024,
  "downtime-limit": 300,
  "avail-switchover-bandwidth": 0,
  mode: "normal",
  "throttle-trigger-threshold": 50,
  "cpu-throttle-initial": 20,
  "cpu-throttle-increment": 10,
  "max-cpu-throttle": 99,
};

const END_STATES: ReadonlySet<MigrationStatus> = new Set(["completed", "failed", "cancelled"]);
/** The connection is lost; the guest has gone, and part of its RAM is still here. */
const POSTCOPY_LOST: MigrationStatus = "postcopy-paused";
/** What the VM's state is when the migration has stopped the guest, or has let it go on after a failure. */
const STATES_OF_MIGRATION: ReadonlySet<string> = new Set(["finish-migrate", "postmigrate", "running"]);

export interface QemuOutgoingOptions {
  /** Called with what a person should know. */
  notice: (message: string) => void;
  /** The guest's vCPUs may be slowed down: QEMU must know that before the migration begins. */
  mayThrottle?: boolean;
  /** It may have to end as post-copy: both QEMUs must know that before it begins. */
  mayPostcopy?: boolean;
  /**
   * A destination that starts by itself may have the guest from `committed` on: a guard keeps QEMU from resuming it
   * even if this process is killed then.
   */
  guarded?: boolean;
  /** What a Deltavee that was killed had to put back, where it is known. */
  left?: MigrationSettings | undefined;
}

/** Settings of a QEMU that a migration changes. */
export interface MigrationSettings {
  capabilities: { capability: MigrationCapability; state: boolean }[];
  parameters: MigrationParameters;
}

export class QemuOutgoing implements OutgoingVm {
  readonly description: string;
  readonly version: string;
  readonly guestRamBytes: number;
  readonly pageBytes: number;
  readonly switchoverControl: "ack" | "limit";
  readonly awaitsDestinationAck: boolean;
  readonly throttle?: (percentage: number) => Promise<void>;
  readonly startPostcopy?: () => Promise<void>;
  readonly ended: Promise<OutgoingEnd>;
  readonly firstPassEnded: Promise<void>;
  readonly #qmp: QmpClient;
  readonly #options: QemuOutgoingOptions;
  readonly #restore: MigrationSettings;
  /** QEMU has settings of a Deltavee: ours, or one's that was killed. */
  #hasOurs: boolean;
  #wasRunning: boolean;
  readonly #hasKvm: boolean;
  #resolveEnded!: (end: OutgoingEnd) => void;
  #resolveFirstPass!: () => void;
  #over = false;
  #begun = false;
  /** The migration has stopped the guest. */
  #isStopped = false;
  #socket: MigrationSocket | undefined;
  #listener: Listener | undefined;
  #guard: Guard | undefined;
  #pollTimer: NodeJS.Timeout | undefined;
  #status: OutgoingStatus = {};
  readonly #forecast = new DirtyForecast(systemClock);
  #downtimeLimitMs = DOWNTIME_LIMIT_MS_MIN;
  /** QEMU reckons with the bandwidth that we give it, not with what it has measured. */
  readonly #givesBandwidth: boolean;
  /** QEMU's own view of the rate at which we take pages, from the last time it was asked. */
  #handoverBytesPerSecond = 0;

  /**
   * Connects and looks whether the VM can be migrated at all; changes nothing yet.
   * @throws DeltaveeError QMP_UNAVAILABLE, HYPERVISOR_FAILED when another migration is under way, or
   *   HYPERVISOR_INCOMPATIBLE when its architecture cannot be migrated, or QEMU would not survive it
   */
  static async open(address: QmpAddress, options: QemuOutgoingOptions): Promise<QemuOutgoing> {
    const qmp = await QmpClient.connect(address);
    try {
      // Asked together: each answer takes QEMU's main loop a turn.
      const [status, migration, capabilities, parameters, memory, target, kvm] = await Promise.all([
        qmp.execute("query-status"),
        qmp.execute("query-migrate"),
        qmp.execute("query-migrate-capabilities"),
        qmp.execute("query-migrate-parameters"),
        qmp.execute("query-memory-size-summary"),
        qmp.execute("query-target"),
        qmp.execute("query-kvm"),
      ]);
      const pageBytes = targetPageBytes(target.arch, qmp.version);
      if (isUnderWay(migration.status)) throw alreadyMigrating(migration.status);
      if (status.status === "inmigrate" || status.status === "postmigrate") {
        throw new DeltaveeError(
          "HYPERVISOR_FAILED",
          `QEMU has no guest to give away (it is in state ${status.status})`,
        );
      }
      const blocked = migration["blocked-reasons"];
      if (blocked !== undefined && blocked.length > 0) {
        throw new DeltaveeError("HYPERVISOR_FAILED", `QEMU cannot migrate this VM: ${blocked.join("; ")}`);
      }
      if (status.running && !kvm.enabled) await refuseIfDeadly(qmp);
      return new QemuOutgoing(qmp, options, {
        wasRunning: status.running,
        hasKvm: kvm.enabled,
        guestRamBytes: memory["base-memory"] + (memory["plugged-memory"] ?? 0),
        pageBytes,
        restore: settingsToRestore(capabilities, parameters, options),
        hasOurs: areOurs(parameters),
      });
    } catch (thrown) {
      qmp.close();
      throw thrown;
    }
  }

  private constructor(
    qmp: QmpClient,
    options: QemuOutgoingOptions,
    found: {
      wasRunning: boolean;
      hasKvm: boolean;
      guestRamBytes: number;
      pageBytes: number;
      restore: MigrationSettings;
      hasOurs: boolean;
    },
  ) {
    this.#qmp = qmp;
    this.#options = options;
    this.#wasRunning = found.wasRunning;
    this.#hasKvm = found.hasKvm;
    this.guestRamBytes = found.guestRamBytes;
    this.pageBytes = found.pageBytes;
    this.#restore = found.restore;
    this.#hasOurs = found.hasOurs;
    const ack = found.restore.capabilities.find(({ capability }) => capability === "switchover-ack");
    this.switchoverControl = ack === undefined ? "limit" : "ack";
    this.awaitsDestinationAck = ack?.state === true;
    // Not where the limit is all there is: QEMU's own measure then keeps it from stopping the guest too early.
    this.#givesBandwidth =
      ack !== undefined && found.restore.parameters["avail-switchover-bandwidth"] !== undefined;
    if (options.mayThrottle === true) this.throttle = (percentage) => this.#throttle(percentage);
    if (options.mayPostcopy === true) {
      this.startPostcopy = async () => void (await qmp.execute("migrate-start-postcopy"));
    }
    const { major, minor, micro } = qmp.version;
    this.version = `${major}.${minor}.${micro}`;
    this.description = `QEMU ${this.version}`;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.firstPassEnded = new Promise((resolve) => {
      this.#resolveFirstPass = resolve;
    });
  }

  /** What the VM is called, as far as it was given a name or a UUID. */
  async names(): Promise<{ name?: string; uuid?: string }> {
    const [{ name }, { UUID: uuid }] = await Promise.all([
      this.#qmp.execute("query-name"),
      this.#qmp.execute("query-uuid"),
    ]);
    return { ...(name === undefined ? {} : { name }), ...(/^[0-]*$/.test(uuid) ? {} : { uuid }) };
  }

  /** For people: what this QEMU does to its guest by itself, if anything. One that is paused writes nothing. */
  async weakness(): Promise<string | undefined> {
    if (!this.#wasRunning || this.#hasKvm) return undefined;
    return lossWithoutKvm(this.version, (await this.#qmp.execute("query-memdev")).length);
  }

  /** Where its RAM is to be found. `pid`: of this QEMU. @throws DeltaveeError HYPERVISOR_FAILED */
  locateMemory(pid: number): Promise<GuestMemoryPlace> {
    return locateGuestMemory(this.#qmp, pid);
  }

  openRam(): Promise<StoppedRam> {
    return openStoppedRam(this.#qmp);
  }

  /** To be put back at the end, by whoever can. */
  get settings(): MigrationSettings {
    return this.#restore;
  }

  get wasRunning(): boolean {
    return this.#wasRunning;
  }

  async begin(): Promise<Channel> {
    try {
      return await this.#begin();
    } catch (thrown) {
      if (thrown instanceof QmpCommandError) await this.#leaveToAnother(thrown);
      throw thrown;
    }
  }

  async #begin(): Promise<Channel> {
    const qmp = this.#qmp;
    await this.#setUp();
    this.#socket = await MigrationSocket.create(qmp.address);
    const connected = this.#acceptOne(this.#socket.path);
    // A failure of the commands below is the one to report.
    connected.catch(() => {});
    const socket = await Promise.resolve(connected.listening).then(async () => {
      await this.#socket?.giveToQemu();
      qmp.on("MIGRATION", ({ data }) => void this.#entered(data.status));
      // The first look for dirty pages comes before the first pass.
      qmp.on("MIGRATION_PASS", ({ data }) => {
        if (data.pass > 1) this.#resolveFirstPass();
      });
      qmp.on("STOP", () => void this.#guestStopped());
      qmp.on("RESUME", () => {
        this.#isStopped = false;
        this.#wasRunning = true;
      });
      void qmp.lost.then((reason) => this.#end({ outcome: "failed", reason: reason.message }));
      // Should there be no answer, it may have begun.
      this.#begun = true;
      await qmp.execute("migrate", { uri: `unix:${this.#socket?.path}` });
      return connected;
    });
    this.#poll();
    if (this.#options.guarded !== true) return new SocketChannel(socket);
    this.#guard = Guard.start(socket, this.#options.notice);
    return new GuardedChannel(socket, () => this.#guard?.end(this.#over));
  }

  committed(): void {
    this.#guard?.commit();
  }

  async limitSwitchover(remainingBytesMax: number): Promise<void> {
    const bytesPerMs = this.#givesBandwidth ? LIMIT_BYTES_PER_MS : this.#handoverBytesPerSecond / 1000;
    if (this.#over || bytesPerMs === 0) return;
    const limitMs = Math.round(remainingBytesMax / bytesPerMs);
    const boundedMs = Math.min(DOWNTIME_LIMIT_MS_MAX, Math.max(DOWNTIME_LIMIT_MS_MIN, limitMs));
    const change = Math.abs(boundedMs - this.#downtimeLimitMs);
    if (change <= this.#downtimeLimitMs * LIMIT_CHANGE_SHARE_MIN) return;
    this.#downtimeLimitMs = boundedMs;
    await this.#qmp.execute("migrate-set-parameters", { "downtime-limit": boundedMs });
  }

  async #throttle(percentage: number): Promise<void> {
    // When the migration is over QEMU has let the guest go already.
    if (this.#over) return;
    await this.#qmp.execute("migrate-set-parameters", throttleParameters(percentage));
  }

  async status(): Promise<OutgoingStatus> {
    // Also when it is over: QEMU gives its own figure of the downtime only then.
    await this.#query();
    return this.#status;
  }

  async cancel(): Promise<void> {
    if (!this.#begun || this.#over) return;
    await this.#qmp.execute("migrate_cancel", {}, { timeoutMs: CANCEL_TIMEOUT_MS });
  }

  async resume(): Promise<void> {
    await this.#qmp.execute("cont");
  }

  async isRunning(): Promise<boolean | undefined> {
    try {
      // After a cancel QEMU resumes the guest in its own time.
      const deadlineMs = performance.now() + RETURN_TIMEOUT_MS;
      for (;;) {
        const { running } = await this.#qmp.execute("query-status");
        if (running || !this.wasRunning || performance.now() > deadlineMs) return running;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    } catch (thrown) {
      this.#options.notice(`QEMU does not say whether the guest runs: ${toError(thrown).message}`);
      return undefined;
    }
  }

  /** Puts back what was changed in QEMU's settings and lets go of it. The guest is not touched. */
  async close(): Promise<void> {
    clearTimeout(this.#pollTimer);
    this.#listener?.close();
    this.#guard?.end(this.#over);
    const failure = await this.#socket?.remove();
    if (failure !== undefined)
      this.#options.notice(`Could not remove a temporary folder: ${failure.message}`);
    try {
      if (this.#hasOurs) await putBackSettings(this.#qmp, this.#restore);
    } catch (thrown) {
      this.#options.notice(`QEMU's migration settings were not put back: ${toError(thrown).message}`);
    }
    this.#qmp.close();
  }

  /**
   * QEMU has refused what begins a migration. Where the reason is that another one has begun since we looked, that is
   * neither ours to cancel, nor are its settings ours to put back.
   */
  async #leaveToAnother(refusal: QmpCommandError): Promise<void> {
    this.#begun = false;
    const { status } = await this.#qmp.execute("query-migrate");
    if (!isUnderWay(status)) return;
    this.#hasOurs = false;
    throw alreadyMigrating(status, refusal);
  }

  async #setUp(): Promise<void> {
    const asked: Partial<Record<MigrationCapability, boolean>> = {
      [THROTTLE_CAPABILITY]: this.throttle !== undefined,
      [POSTCOPY_CAPABILITY]: this.startPostcopy !== undefined,
    };
    const wanted = this.#restore.capabilities.map(({ capability, state }) => ({
      capability,
      state: asked[capability] ?? CAPABILITIES[capability] ?? state,
    }));
    this.#hasOurs = true;
    for (const { capability, state } of this.#restore.capabilities) {
      if (state && (asked[capability] ?? CAPABILITIES[capability]) === false) {
        this.#options.notice(`QEMU's capability ${capability} is off during this migration`);
      }
    }
    await this.#setCapabilities(wanted);
    // QEMU must not stop the guest before anybody has looked at what is left.
    await this.#qmp.execute("migrate-set-parameters", {
      "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
      "downtime-limit": this.#downtimeLimitMs,
      ...(this.#givesBandwidth ? { "avail-switchover-bandwidth": LIMIT_BYTES_PER_MS * 1000 } : {}),
      ...(this.#restore.parameters.mode === undefined ? {} : { mode: DEFAULT_PARAMETERS.mode }),
      ...(this.throttle === undefined ? {} : throttleParameters(0)),
    });
  }

  async #setCapabilities(capabilities: { capability: MigrationCapability; state: boolean }[]): Promise<void> {
    await this.#qmp.execute("migrate-set-capabilities", { capabilities });
  }

  /** Takes the one connection that the stream comes through. */
  #acceptOne(path: string): Promise<Socket> & { listening: Promise<void> } {
    let onListening: () => void = () => {};
    let onFailure: (error: unknown) => void = () => {};
    const listening = new Promise<void>((resolve, reject) => {
      onListening = resolve;
      onFailure = reject;
    });
    const connected = new Promise<Socket>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new DeltaveeError("HYPERVISOR_FAILED", "QEMU did not connect to hand over its stream")),
        CONNECT_TIMEOUT_MS,
      );
      void this.ended.then((end) => {
        if (end.outcome !== "completed") reject(new DeltaveeError("HYPERVISOR_FAILED", end.reason));
      });
      listen(
        { kind: "unix", path },
        {
          onConnection: (socket) => {
            clearTimeout(timer);
            this.#listener?.close();
            resolve(socket);
          },
          onError: (error) => this.#options.notice(error.message),
        },
        { connectionsMax: 1, pauseOnConnect: true },
      ).then(
        (listener) => {
          this.#listener = listener;
          onListening();
        },
        (error: unknown) => {
          clearTimeout(timer);
          onFailure(error);
        },
      );
    });
    return Object.assign(connected, { listening });
  }

  #poll(): void {
    if (this.#over) return;
    this.#pollTimer = setTimeout(() => {
      this.#query().then(
        () => this.#poll(),
        (error: unknown) => {
          // A refused query changes nothing; a lost connection ends by `lost`.
          if (error instanceof QmpCommandError) this.#poll();
        },
      );
    }, POLL_EVERY_MS);
  }

  async #query(): Promise<void> {
    const info = await this.#qmp.execute("query-migrate");
    const { ram, downtime, status } = info;
    // QEMU counts bitmap syncs, and syncs once before the first pass.
    const iteration = Math.max(0, (ram?.["dirty-sync-count"] ?? 0) - 1);
    this.#status = {
      ...(ram === undefined ? {} : { iteration }),
      ...(ram === undefined
        ? {}
        : { remainingBytes: this.#forecast.remainingBytes(iteration, ram.remaining) }),
      ...(ram === undefined ? {} : { dirtyPagesPerSecond: ram["dirty-pages-rate"] }),
      ...(downtime === undefined ? {} : { downtimeMs: downtime }),
      isStopped: this.#isStopped,
      isPostcopy: await this.#isInPostcopy(status),
    };
    if (ram !== undefined) this.#handoverBytesPerSecond = (ram.mbps * 1e6) / 8;
    if (status !== undefined) await this.#entered(status, info["error-desc"]);
  }

  /** QEMU calls it so a moment before it stops the guest. */
  async #isInPostcopy(status: MigrationStatus | undefined): Promise<boolean> {
    if (status?.startsWith("postcopy-") !== true) return false;
    return !(await this.#qmp.execute("query-status")).running;
  }

  /** Whoever manages the VM may pause it in the middle of a migration: it must then arrive paused. */
  async #guestStopped(): Promise<void> {
    try {
      const { status } = await this.#qmp.execute("query-status");
      if (!STATES_OF_MIGRATION.has(status)) this.#wasRunning = false;
      this.#isStopped = status === "finish-migrate" || status === "postmigrate";
    } catch (thrown) {
      this.#options.notice(`QEMU does not say why the guest stopped: ${toError(thrown).message}`);
    }
  }

  async #entered(status: MigrationStatus, description?: string): Promise<void> {
    if (status === POSTCOPY_LOST) {
      this.#end({ outcome: "failed", reason: description ?? "QEMU has lost the connection in post-copy" });
    }
    if (this.#over || !END_STATES.has(status)) return;
    if (status === "completed") {
      this.#end({ outcome: "completed" });
      return;
    }
    let reason = description;
    if (reason === undefined) {
      try {
        reason = (await this.#qmp.execute("query-migrate"))["error-desc"];
      } catch (thrown) {
        reason = `no reason could be had (${toError(thrown).message})`;
      }
    }
    this.#end({ outcome: status === "cancelled" ? "cancelled" : "failed", reason: reason ?? status });
  }

  #end(end: OutgoingEnd): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#pollTimer);
    this.#resolveEnded(end);
  }
}

/** @throws DeltaveeError HYPERVISOR_INCOMPATIBLE: QEMU would not survive the migration of a guest that runs */
async function refuseIfDeadly(qmp: QmpClient): Promise<void> {
  const death = deathWithoutKvm(qmp.version, await listRamBlocks(qmp));
  if (death === undefined) return;
  const text = `${death}. The guest was not touched. ${WAYS_ROUND_DEATH}`;
  throw new DeltaveeError("HYPERVISOR_INCOMPATIBLE", text);
}

function isUnderWay(status: MigrationStatus | undefined): status is MigrationStatus {
  return status !== undefined && status !== "none" && !END_STATES.has(status);
}

function alreadyMigrating(status: MigrationStatus, cause?: Error): DeltaveeError {
  const message = `QEMU is migrating this VM already (${status})`;
  return new DeltaveeError("HYPERVISOR_FAILED", message, cause === undefined ? {} : { cause });
}

/** 0: as little as QEMU can be told. */
function throttleParameters(percentage: number): MigrationParameters {
  const bounded = Math.min(THROTTLE_PERCENTAGE_MAX, Math.max(THROTTLE_PERCENTAGE_MIN, percentage));
  return {
    "throttle-trigger-threshold": THROTTLE_TRIGGER_PERCENTAGE,
    "cpu-throttle-initial": bounded,
    "cpu-throttle-increment": bounded,
    "max-cpu-throttle": bounded,
  };
}

/** @throws DeltaveeError when QEMU does not take them */
export async function putBackSettings(qmp: QmpClient, settings: MigrationSettings): Promise<void> {
  // An interrupted post-copy takes parameters, but no capabilities.
  await qmp.execute("migrate-set-parameters", settings.parameters);
  await qmp.execute("migrate-set-capabilities", { capabilities: settings.capabilities });
}

function areOurs(parameters: MigrationParameters): boolean {
  return parameters["max-bandwidth"] === UNLIMITED_BYTES_PER_SECOND;
}

/** For a QEMU of which nothing is known but itself: what is to be put back if a Deltavee that was killed left its own. */
export async function findLeftSettings(qmp: QmpClient): Promise<MigrationSettings | undefined> {
  const capabilities = await qmp.execute("query-migrate-capabilities");
  const parameters = await qmp.execute("query-migrate-parameters");
  if (!areOurs(parameters)) return undefined;
  return settingsToRestore(capabilities, parameters, { notice: () => {} });
}

/** A connection of which the guard holds a duplicate: QEMU does not see it close before that does. */
class GuardedChannel extends SocketChannel {
  readonly #destroyed: () => void;

  constructor(socket: Socket, destroyed: () => void) {
    super(socket);
    this.#destroyed = destroyed;
  }

  override destroy(): void {
    super.destroy();
    this.#destroyed();
  }
}

/** What of QEMU's settings is put back at the end: what we are going to change, and what we find changed. */
function settingsToRestore(
  capabilities: readonly { capability: string; state: boolean }[],
  parameters: MigrationParameters,
  { notice, mayThrottle = false, left }: QemuOutgoingOptions,
): MigrationSettings {
  const ours = areOurs(parameters);
  if (ours) {
    const back =
      left === undefined ? "it gets its defaults back" : "those from before it are put back at the end";
    notice(`QEMU has migration settings of a Deltavee that was killed: ${back}`);
  }
  const throttles =
    mayThrottle || (ours && parameters["throttle-trigger-threshold"] === THROTTLE_TRIGGER_PERCENTAGE);
  const known = capabilities.filter(
    ({ capability }) => capability in CAPABILITIES || (throttles && capability === THROTTLE_CAPABILITY),
  );
  const before = new Map(left?.capabilities.map(({ capability, state }) => [capability, state]));
  // What is not known of the one that was killed it has not changed, where anything is known of it.
  const from = !ours
    ? parameters
    : left === undefined
      ? DEFAULT_PARAMETERS
      : { ...parameters, ...left.parameters };
  const ownNames = ["max-bandwidth", "downtime-limit", "avail-switchover-bandwidth", "mode"] as const;
  const names = [...ownNames, ...(throttles ? THROTTLE_PARAMETERS : [])].filter(
    (name) => parameters[name] !== undefined,
  );
  return {
    capabilities: known.map(({ capability: name, state }) => {
      const capability = name as MigrationCapability;
      if (!ours) return { capability, state };
      return { capability, state: before.get(capability) ?? (left !== undefined && state) };
    }),
    parameters: Object.fromEntries(names.map((name) => [name, from[name]])),
  };
}
