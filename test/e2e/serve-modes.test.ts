// What `deltavee serve` shares with `deltavee migrate` and `receive`, through the service: certificates both ways, a
// destination that is a stock QEMU, and post-copy of a guest that never converges.

import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Authority, writeTlsFolder } from "../support/certificates.ts";
import { freePort } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import type { QemuVm } from "../support/qemu-vm.ts";
import { openServices, type Services } from "../support/services.ts";
import { expectMoved, expectStillOnSource, LIGHT_LOAD, NOISE_LOAD, startVm } from "./scene.ts";

const qemus = findQemus();
const binary = qemus.get("10.0") ?? qemus.get("7.2");
const OUTGOING = { maxDowntime: "2s", onStall: "switchover", forecast: false };

describe.skipIf(binary === undefined)("through deltavee serve", { timeout: 600_000 }, () => {
  let services: Services;
  beforeEach(() => {
    services = openServices();
  });
  afterEach(() => services.stop());

  async function pair(name: string, { append = LIGHT_LOAD, incoming = "defer" } = {}) {
    const options = { binary: binary!, append, extraArguments: ["-name", name] };
    const source = await startVm(options);
    const destination = await startVm({ ...options, incoming });
    await source.waitForReady();
    return { source, destination };
  }

  async function expectWhole(destination: QemuVm): Promise<void> {
    // Stock QEMU 7.2 loses page updates of its own under TCG.
    if (binary!.name !== "7.2") expect(await destination.verify()).toMatchObject({ ok: true, badPages: 0 });
  }

  test("certificates: who may hand over which VM is held to, and the one that may does", async () => {
    const authority = new Authority();
    const files = (host: string) => {
      const certificate = authority.issue([host, "127.0.0.1"]);
      return writeTlsFolder(join(services.folder, `tls-${host}`), authority, certificate);
    };
    const { source, destination } = await pair("web-1");
    const there = await services.serve("there", {
      incoming: { listen: "127.0.0.1:0", allow: ["host1=web-1"] },
      tls: { dir: files("host2") },
    });
    const evacuate = (socket: string, ...more: string[]) =>
      services.cli(
        ...["evacuate", "--service", socket, "--to", `deltavee://${there.listen}`, ...more],
        source.toolQmp.path,
      );
    await services.cli("service", "prepare", "--service", there.socket, destination.toolQmp.path);

    const plain = await services.serve("plain", { outgoing: OUTGOING });
    const unsecured = await evacuate(plain.socket);
    expect(unsecured.code).toBe(1);
    expect(unsecured.out).toMatch(/LINK_CLOSED|LINK_FAILED|TLS_/);
    const stranger = await services.serve("stranger", { outgoing: OUTGOING, tls: { dir: files("host3") } });
    const refused = await evacuate(stranger.socket);
    expect(refused.code).toBe(1);
    expect(refused.out).toContain("NOT_AUTHORISED");
    await expectStillOnSource(source, destination);

    const here = await services.serve("here", { outgoing: OUTGOING, tls: { dir: files("host1") } });
    const wrong = await evacuate(here.socket, "--tls-hostname", "host9");
    expect(wrong.out).toContain("TLS_PEER_REJECTED");
    await expectStillOnSource(source, destination);
    expect(await evacuate(here.socket)).toMatchObject({ code: 0, err: "" });
    await expectMoved(source, destination);
    await expectWhole(destination);
  });

  test("direct: to a stock QEMU, one VM by one command", async () => {
    const port = await freePort();
    const { source, destination } = await pair("web-1", { incoming: `tcp:127.0.0.1:${port}` });
    const here = await services.serve("here", { outgoing: OUTGOING, link: { rate: "100mbit" } });
    const evacuate = ["evacuate", "--service", here.socket, "--to", `tcp:127.0.0.1:${port}`];
    const two = await services.cli(...evacuate, source.toolQmp.path, destination.toolQmp.path);
    expect(two.code).toBe(2);
    expect(two.err).toContain("takes in one VM");
    expect(await services.cli(...evacuate, source.toolQmp.path)).toMatchObject({ code: 0, err: "" });
    await expectMoved(source, destination);
    await expectWhole(destination);
    expect(await here.metrics()).toContain(
      'deltavee_migrations_started_total{side="source",mode="direct"} 1',
    );
  });

  test("post-copy: a guest that never converges goes on at the destination, and all of it follows", async () => {
    const { source, destination } = await pair("noisy", { append: NOISE_LOAD });
    const there = await services.serve("there", { incoming: { listen: "127.0.0.1:0" } });
    // Of the rate of its link: what the service shares out is what there is.
    const here = await services.serve("here", { link: { rate: "100mbit" }, outgoing: { forecast: false } });
    await services.cli("service", "prepare", "--service", there.socket, destination.toolQmp.path);
    const evacuated = await services.cli(
      ...["evacuate", "--service", here.socket, "--to", `deltavee://${there.listen}`],
      ...["--max-downtime", "100ms", "--on-stall", "postcopy", source.toolQmp.path],
    );
    expect(evacuated).toMatchObject({ code: 0, err: "" });
    await expectMoved(source, destination);
    await expectWhole(destination);
    for (const { metrics } of [here, there]) {
      const text = await metrics();
      expect(text).toMatch(/^deltavee_migrations_ended_total\{side="\w+",outcome="completed"\} 1$/m);
    }
    const asked = /^deltavee_postcopy_requested_bytes_total (\d+)$/m.exec(await here.metrics());
    expect(Number(asked?.[1])).toBeGreaterThan(0);
  });
});
