// The service as its operator has it: `deltavee serve` at two hosts, real QEMUs between them, told what to do by the
// command line, watched by its metrics, and stopped by signals.

import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { openServices, READY_MS, type Services } from "../support/services.ts";
import { expectMoved, expectStillOnSource, LIGHT_LOAD, startVm } from "./scene.ts";

const qemus = findQemus();
const binary = qemus.get("10.0") ?? qemus.get("7.2");

describe.skipIf(binary === undefined)("deltavee serve", { timeout: 900_000 }, () => {
  let services: Services;
  beforeEach(() => {
    services = openServices();
  });
  afterEach(() => services.stop());
  const serve = (name: string, settings: Record<string, unknown>) => services.serve(name, settings);
  const cli = (...words: string[]) => services.cli(...words);

  async function pair(name: string): Promise<{ source: QemuVm; destination: QemuVm }> {
    const options = { binary: binary!, append: LIGHT_LOAD, extraArguments: ["-name", name] };
    const source = await startVm(options);
    const destination = await startVm({ ...options, incoming: "defer" });
    await source.waitForReady();
    return { source, destination };
  }

  test("VMs of QEMU leave one service and come to another, both by their names", async () => {
    const [web, db] = [await pair("web-1"), await pair("db-1")];
    const there = await serve("there", { incoming: { listen: "127.0.0.1:0" } });
    const here = await serve("here", {
      link: { rate: "100mbit" },
      recordDir: "records",
      outgoing: { maxDowntime: "2s", onStall: "switchover" },
      metrics: { vmNames: true },
    });
    const prepared = await cli(
      ...["service", "prepare", "--service", there.socket],
      ...[web.destination.toolQmp.path, db.destination.toolQmp.path],
    );
    expect(prepared).toMatchObject({ code: 0, err: "" });
    expect(prepared.out).toMatch(/awaited {3}web-1, at .*\nawaited {3}db-1, at /);

    const evacuated = await cli(
      ...["evacuate", "--service", here.socket, "--json", "--to", `deltavee://${there.listen}`],
      ...[`${web.source.toolQmp.path}=3`, db.source.toolQmp.path],
    );
    expect(evacuated).toMatchObject({ code: 0, err: "" });
    const moves = evacuated.out.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(moves.map(({ vm, weight, state }) => ({ vm, weight, state })).sort(byName)).toEqual([
      { vm: "db-1", weight: 1, state: "completed" },
      { vm: "web-1", weight: 3, state: "completed" },
    ]);
    for (const { source, destination } of [web, db]) {
      await expectMoved(source, destination);
      if (binary!.name !== "7.2") expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
    }

    const [of, at] = [await here.metrics(), await there.metrics()];
    expect(of).toContain('deltavee_migrations_ended_total{side="source",outcome="completed"} 2');
    expect(of).toContain("deltavee_link_limit_bytes_per_second 12500000");
    expect(at).toContain('deltavee_migrations_ended_total{side="destination",outcome="completed"} 2');
    const listed = await cli("service", "list", "--service", there.socket);
    expect(listed.out).toMatch(/completed .* web-1 from /);
    expect(listed.out).not.toContain("awaited");
    // The page has them, and the log says so in lines that a program reads.
    expect(await (await fetch(new URL("runs", here.url))).text()).toContain("web-1");
    expect(here.log().filter(({ event, vm }) => event === "summary" && vm === "web-1")).toHaveLength(1);

    there.run.kill("SIGTERM");
    here.run.kill("SIGTERM");
    expect(await here.run.exited).toEqual({ code: 0, signal: null });
    expect(await there.run.exited).toEqual({ code: 0, signal: null });
  });

  test("SIGTERM lets a migration finish and takes nothing new; a second one cancels it", async () => {
    const [first, second] = [await pair("first"), await pair("second")];
    const there = await serve("there", { incoming: { listen: "127.0.0.1:0" } });
    const here = await serve("here", { link: { rate: "5mbit" }, outgoing: { forecast: false } });
    await cli("service", "prepare", "--service", there.socket, first.destination.toolQmp.path);
    const to = `deltavee://${there.listen}`;
    const evacuating = cli(
      "evacuate",
      "--service",
      here.socket,
      "--json",
      "--to",
      to,
      first.source.toolQmp.path,
    );
    await here.run.stderr.waitFor(
      ({ text }) => /"event":"phase".*"phase":"iterating"/.test(text),
      "iterating",
      {
        timeoutMs: READY_MS,
      },
    );

    here.run.kill("SIGTERM");
    await here.run.stderr.waitFor(({ text }) => text.includes('"event":"stopping"'), "stopping", {
      timeoutMs: READY_MS,
    });
    const refused = await cli("evacuate", "--service", here.socket, "--to", to, second.source.toolQmp.path);
    expect(refused.code).toBe(1);
    expect(refused.err).toContain("SERVICE_STOPPING");
    const listed = await cli("service", "list", "--service", here.socket);
    expect(listed.out).toMatch(/stopping: 1 under way[\s\S]*running .* first to /);

    here.run.kill("SIGTERM");
    expect(await here.run.exited).toEqual({ code: 0, signal: null });
    const evacuated = await evacuating;
    expect(evacuated.code).toBe(130);
    expect(JSON.parse(evacuated.out)).toMatchObject({ vm: "first", state: "cancelled" });
    await expectStillOnSource(first.source, first.destination);
    await expectStillOnSource(second.source, second.destination);
  });

  test("what cannot be is refused before anything is touched, and said", async () => {
    const { source, destination } = await pair("vm");
    const here = await serve("here", { incoming: { listen: "127.0.0.1:0" } });
    const service = ["--service", here.socket];
    const to = ["--to", "deltavee://127.0.0.1:1"];
    const nobody = await cli("evacuate", ...service, ...to, source.toolQmp.path);
    expect(nobody).toMatchObject({ code: 1 });
    expect(nobody.out).toMatch(/failed .* vm to deltavee:\/\/127\.0\.0\.1:1[\s\S]*LINK_FAILED/);
    const empty = await cli("evacuate", ...service, ...to, destination.toolQmp.path);
    expect(empty.err).toContain(
      "HYPERVISOR_FAILED: QEMU has no guest to give away (it is in state inmigrate)",
    );
    const none = await cli("evacuate", ...service, ...to, join(services.folder, "none.qmp"));
    expect(none).toMatchObject({ code: 1 });
    expect(none.err).toContain("QMP_UNAVAILABLE");
    const full = await cli("service", "prepare", ...service, source.toolQmp.path);
    expect(full).toMatchObject({ code: 1 });
    expect(full.err).toContain("QEMU does not wait for a migration (it is in state running)");
    const unknown = await cli("service", "cancel", ...service, "12345678");
    expect(unknown).toMatchObject({ code: 2 });
    // One at a time: whoever has the socket is there already.
    const second = await cli("serve", "--config", join(services.folder, "here.yaml"));
    expect(second).toMatchObject({ code: 1 });
    expect(second.err).toContain("another process listens there");
    await expectStillOnSource(source, destination);

    // What a service that was killed has left does not keep the next one from starting.
    here.run.kill("SIGKILL");
    await here.run.exited;
    const again = await serve("here", {});
    expect((await cli("service", "list", "--service", again.socket)).code).toBe(0);
  });
});

function byName(a: { vm: unknown }, b: { vm: unknown }): number {
  return String(a.vm) < String(b.vm) ? -1 : 1;
}
