// A migration that is given up, or whose peers die, at any side, in the middle of pre-copy: the guest works on at
// the source, whole; it has run nowhere else; and the operator is told so, with a code and an exit status. Also
// what is refused before anything is touched.

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  destinationFor,
  type Ended,
  ended,
  listeningAddress,
  type Migration,
  type Mode,
  receiveArguments,
} from "../support/migration.ts";
import { freePort, runCli, tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuOptions, QemuVm } from "../support/qemu-vm.ts";
import {
  eventsOf,
  expectMoved,
  expectStillOnSource,
  LIGHT_LOAD,
  MEMORY_MIB,
  migration,
  runsNow,
  startPair,
  startVm,
  summaryOf,
} from "./scene.ts";

const qemu10 = findQemus().get("10.0");
const modes = ["direct", "tunnel"] as const;
const failed = { code: 1, signal: null };
const cancelled = { code: 130, signal: null };
const onSource = "the VM is: running on source";
/** Nobody comes back here: what is resumed is for resumption.test.ts. */
const impatient = (mode: Mode) => {
  const patience = mode === "tunnel" ? ["--reconnect-timeout", "1s"] : [];
  return { migrateArguments: patience, receiveArguments: patience };
};

describe.skipIf(qemu10 === undefined)("a migration that does not come to its end", () => {
  const binary = qemu10!;
  const options = { binary, append: LIGHT_LOAD };

  /** In the first pass, a quarter of the working set on the wire. */
  async function halfWay(mode: Mode): Promise<{ source: QemuVm; destination: QemuVm; running: Migration }> {
    const { source, destination } = await startPair(options);
    const running = await migration({ mode, source, destination, rate: "30mbit", ...impatient(mode) });
    await running.waitForWireBytes(4e6);
    return { source, destination, running };
  }

  async function expectNextSucceeds(mode: Mode, source: QemuVm): Promise<void> {
    const destination = await startVm({ ...options, incoming: "defer" });
    const { migrate } = await (await migration({ mode, source, destination })).finish();
    expect(migrate).toEqual({ code: 0, signal: null, stderr: "" });
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  }

  describe.each(modes)("%s", (mode) => {
    test("Ctrl-C gives it up, the guest works on here, and the next attempt succeeds", async () => {
      const { source, destination, running } = await halfWay(mode);
      const before = await source.qmp.execute("query-migrate-parameters");
      running.migrate.kill("SIGINT");
      const { migrate, receive, events } = await running.finish();
      expect(migrate).toMatchObject(cancelled);
      expect(migrate.stderr).toMatch(/^deltavee: CANCELLED: /);
      expect(migrate.stderr).toContain(onSource);
      if (mode === "tunnel") {
        expect(receive).toMatchObject(cancelled);
        expect(receive?.stderr).toContain(onSource);
      }
      expect(summaryOf(events)).toMatchObject({ outcome: "cancelled", vm: "running on source" });
      await destination.exited;
      await expectStillOnSource(source, destination);
      expect(await source.qmp.execute("query-migrate-parameters")).not.toEqual(before);
      await expectNextSucceeds(mode, source);
    });

    test("the link dies", async () => {
      const { source, destination, running } = await halfWay(mode);
      running.relay.kill("SIGKILL");
      const migrate = await ended(running.migrate);
      expect(migrate).toMatchObject(failed);
      // A relay that ends and a stock destination that closes look alike from here.
      expect(migrate.stderr).toMatch(/^deltavee: (LINK_FAILED|LINK_CLOSED|LINK_LOST|MIGRATION_FAILED): /);
      expect(migrate.stderr).toContain(onSource);
      if (running.receive !== undefined) expect(await ended(running.receive)).toMatchObject(failed);
      await destination.exited;
      await expectStillOnSource(source, destination);
    });

    test("QEMU at the destination dies", async () => {
      const { source, destination, running } = await halfWay(mode);
      process.kill(destination.pid, "SIGKILL");
      const { migrate, receive, events } = await running.finish();
      expect(migrate).toMatchObject(failed);
      expect(migrate.stderr).toMatch(/^deltavee: (LINK_FAILED|LINK_CLOSED|MIGRATION_FAILED): /);
      expect(migrate.stderr).toContain(onSource);
      if (mode === "tunnel") expect(receive).toMatchObject(failed);
      expect(summaryOf(events)).toMatchObject({ outcome: "failed", vm: "running on source" });
      await expectStillOnSource(source, destination);
    });

    test("migrate itself is killed: QEMU goes on by itself, and the next attempt succeeds", async () => {
      const { source, destination, running } = await halfWay(mode);
      running.migrate.kill("SIGKILL");
      if (running.receive !== undefined) {
        const receive = await ended(running.receive);
        expect(receive).toMatchObject(failed);
        expect(receive.stderr).toMatch(/^deltavee: LINK_LOST: /);
      }
      await destination.exited;
      await expectStillOnSource(source, destination);
      await expectNextSucceeds(mode, source);
    });

    test.each<[string, Partial<QemuOptions>]>([
      ["is another machine", { machine: "q35" }],
      ["has less RAM", { memoryMiB: 128 }],
    ])("the destination %s", async (_what, destinationOptions) => {
      const { source, destination } = await startPair(options, destinationOptions);
      const running = await migration({ mode, source, destination });
      const { migrate, receive, events } = await running.finish();
      expect(migrate).toMatchObject(failed);
      expect(migrate.stderr).toMatch(/^deltavee: (LINK_FAILED|LINK_CLOSED|MIGRATION_FAILED): /);
      expect(migrate.stderr).toContain(onSource);
      if (mode === "tunnel") expect(receive).toMatchObject(failed);
      expect(eventsOf(events, "error")).toMatchObject([{ vm: "running on source" }]);
      await destination.exited;
      expect(destination.stderrTail()).not.toBe("");
      await expectStillOnSource(source, destination);
    });
  });

  test("tunnel: receive is killed", async () => {
    const { source, destination, running } = await halfWay("tunnel");
    running.receive!.kill("SIGKILL");
    const migrate = await ended(running.migrate);
    expect(migrate).toMatchObject(failed);
    expect(migrate.stderr).toMatch(/^deltavee: LINK_LOST: /);
    expect(migrate.stderr).toContain(onSource);
    await destination.exited;
    await expectStillOnSource(source, destination);
  });

  test("tunnel: Ctrl-C at the destination gives it up there", async () => {
    const { source, destination, running } = await halfWay("tunnel");
    running.receive!.kill("SIGINT");
    const { migrate, receive } = await running.finish();
    expect(receive).toMatchObject(cancelled);
    expect(migrate).toMatchObject(failed);
    expect(migrate.stderr).toContain("CANCELLED");
    expect(migrate.stderr).toContain(onSource);
    await destination.exited;
    await expectStillOnSource(source, destination);
  });

  test("tunnel: others that ask for the same VM or destination are refused and disturb nothing", async () => {
    const other = await startVm(options);
    await other.waitForReady();
    const { source, destination } = await startPair(options);
    // Slow enough to be still under way when a client of a monitor in use has run out of patience.
    const running = await migration({ mode: "tunnel", source, destination, rate: "8mbit" });
    await running.waitForWireBytes(1e5);
    const to = destinationFor("tunnel", await listeningAddress(running.receive!));
    const [second, again] = await Promise.all([
      endedCli("migrate", "--qmp", other.toolQmp.path, "--to", to),
      endedCli("migrate", "--qmp", source.toolQmp.path, "--to", to),
    ]);
    expect(second).toMatchObject(failed);
    expect(second.stderr).toMatch(/deltavee: PROTOCOL_REFUSED: .*BUSY/);
    expect(second.stderr).toContain(onSource);
    expect(again).toMatchObject(failed);
    expect(again.stderr).toMatch(/deltavee: QMP_UNAVAILABLE: .*another client/);
    await expectStillOnSource(other);

    expect((await running.finish()).migrate).toEqual({ code: 0, signal: null, stderr: "" });
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true });
  });
});

// From the stop of the vCPUs to the guest's next beat some 60 ms pass on this link. Whoever dies at whatever moment
// of them: the guest runs on one side at most, and where migrate says that it does.
// What there is to do about a process of ours that is killed: crash.test.ts.
describe.skipIf(qemu10 === undefined)("in the middle of the switchover", () => {
  const options = { binary: qemu10!, memoryMiB: 64, append: "ws=2048 rate=1000 fill=random" };

  /** Long enough for whoever has been told to run the guest to do so. */
  const SETTLE_MS = 500;

  test.each([
    ["direct", "relay", 0],
    ["direct", "relay", 40],
    ["direct", "destination", 0],
    ["direct", "destination", 40],
    ["direct", "Ctrl-C", 20],
    ["tunnel", "relay", 0],
    ["tunnel", "relay", 40],
    ["tunnel", "destination", 0],
    ["tunnel", "destination", 40],
    ["tunnel", "receive", 0],
    ["tunnel", "receive", 40],
    ["tunnel", "migrate", 0],
    ["tunnel", "migrate", 40],
    ["tunnel", "Ctrl-C", 20],
  ] as const)(
    "%s, %s, after %i ms: the guest runs on one side at most, where it is said to",
    async (mode, victim, afterMs) => {
      const { source, destination } = await startPair(options);
      const stopped = source.qmp.waitForEvent("STOP", () => true, 180_000);
      const running = await migration({
        mode,
        source,
        destination,
        rate: "20mbit",
        delay: "20ms",
        ...impatient(mode),
      });
      await stopped;
      await sleep(afterMs);
      if (victim === "destination") process.kill(destination.pid, "SIGKILL");
      else if (victim === "Ctrl-C") running.migrate.kill("SIGINT");
      else running[victim]!.kill("SIGKILL");

      const migrate = await ended(running.migrate);
      if (running.receive !== undefined) await ended(running.receive);
      await sleep(SETTLE_MS);
      const [sourceRuns, destinationRuns] = await Promise.all([runsNow(source), runsNow(destination)]);
      const outcome = JSON.stringify({ sourceRuns, destinationRuns, migrate });
      expect(sourceRuns && destinationRuns, outcome).toBe(false);
      if (victim === "migrate") return;
      if (migrate.code === 0) expect(sourceRuns, outcome).toBe(false);
      else if (migrate.stderr.includes(onSource)) expect(sourceRuns, outcome).toBe(true);
      else {
        expect(migrate.stderr).toContain("the VM is: unknown");
        expect(sourceRuns, outcome).toBe(false);
      }
      if (sourceRuns) expect(await source.verify(), outcome).toMatchObject({ ok: true });
      if (destinationRuns) await expectMoved(source, destination);
    },
  );
});

describe.skipIf(qemu10 === undefined)("what cannot be done is refused before anything is touched", () => {
  const options = { binary: qemu10!, append: LIGHT_LOAD };

  test("a destination where nobody listens, and a VM that has no guest to give", async () => {
    const { source, destination } = await startPair(options);
    const nobody = `tcp:127.0.0.1:${await freePort()}`;
    const unreachable = await endedCli("migrate", "--qmp", source.toolQmp.path, "--to", nobody);
    expect(unreachable).toMatchObject(failed);
    expect(unreachable.stderr).toMatch(/deltavee: LINK_FAILED: /);

    const guestless = await endedCli("migrate", "--qmp", destination.toolQmp.path, "--to", nobody);
    expect(guestless).toMatchObject(failed);
    expect(guestless.stderr).toMatch(/deltavee: HYPERVISOR_FAILED: .*inmigrate/);
    expect(await destination.qmp.execute("query-status")).toMatchObject({ status: "inmigrate" });

    // Its QEMU runs a guest of its own: it is neither taken for a destination nor harmed.
    const occupied = await endedCli("receive", ...receiveArguments(source));
    expect(occupied).toMatchObject(failed);
    expect(occupied.stderr).toMatch(/deltavee: HYPERVISOR_FAILED: .*-incoming defer/);
    await expectStillOnSource(source, destination);
  });

  // Whoever carries the stream, QEMU 10.0 fails an assertion (src/hypervisor/qemu/soundness.ts).
  test("a guest whose QEMU would die of it, which moves while it is paused", async () => {
    const dimm = ["-object", "memory-backend-ram,id=d1,size=128M", "-device", "pc-dimm,memdev=d1"];
    const extraArguments = ["-m", `${MEMORY_MIB}M,slots=1,maxmem=1G`, ...dimm];
    const { source, destination } = await startPair({ ...options, extraArguments });
    const nobody = `tcp:127.0.0.1:${await freePort()}`;
    const refused = await endedCli("migrate", "--qmp", source.toolQmp.path, "--to", nobody);
    expect(refused).toMatchObject(failed);
    expect(refused.stderr).toMatch(
      /deltavee: HYPERVISOR_INCOMPATIBLE: .*\(d1, 134 MB\).*\(pc\.ram, 268 MB\)/,
    );
    await expectStillOnSource(source);

    await source.qmp.execute("stop");
    const { migrate } = await (
      await migration({ mode: "tunnel", source, destination, rate: "400mbit" })
    ).finish();
    expect(migrate).toMatchObject({ code: 0 });
    await destination.qmp.execute("cont");
    await expectMoved(source, destination);
    expect(await destination.verify()).toMatchObject({ ok: true });
  });
});

describe("without any QEMU", () => {
  test("a monitor that is not there", async () => {
    const folder = tempFolder();
    onTestFinished(() => folder.remove());
    const path = join(folder.path, "no.qmp");
    for (const commandArguments of [
      ["migrate", "--qmp", path, "--to", "tcp:127.0.0.1:1"],
      ["receive", "--qmp", path, "--listen", "127.0.0.1:0"],
    ]) {
      const run = await endedCli(...commandArguments);
      expect(run).toMatchObject(failed);
      expect(run.stderr).toMatch(/^deltavee: QMP_UNAVAILABLE: /);
      expect(run.stderr).not.toContain("    at ");
    }
  });

  test.each([
    [["migrate"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "nowhere"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:1", "--max-downtime", "soon"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:1", "--max-bandwidth", "-5mbit"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:1", "--cache-size", "all"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:1", "--faster"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:0"]],
    [["migrate", "--qmp", "/x.qmp", "--to", "tcp:127.0.0.1:1", "--state-dir", "/dev/null"]],
    [["receive", "--listen", "127.0.0.1:0"]],
    [["receive", "--qmp", "/x.qmp", "--listen", "127.0.0.1:0", "--state-dir", "/dev/null"]],
    [["recover"]],
    [["recover", "no-such"]],
    [["receive", "--qmp", "deltavee://host:1", "--listen", "127.0.0.1:0"]],
    [["relay", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--rate", "fast"]],
    [["teleport"]],
    [[]],
  ])("wrong usage: %j", async (commandArguments) => {
    const run = await endedCli(...commandArguments);
    expect(run).toMatchObject({ code: 2, signal: null });
    expect(run.stderr).not.toBe("");
    expect(run.stderr).not.toContain("    at ");
  });
});

async function endedCli(...commandArguments: string[]): Promise<Ended> {
  const run = await runCli(commandArguments);
  onTestFinished(async () => void (await run.stop()));
  return ended(run);
}
