// scratch
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { ended } from "../support/migration.ts";
import { findQemus } from "../support/qemu-binaries.ts";
import { heartbeatsOf } from "../support/serial.ts";
import { migration, startPair } from "./scene.ts";

const qemus = findQemus();
for (const name of ["7.2", "10.0"])
  test.each([0, 5, 15, 25, 35, 45, 55, 70])(`${name} %i`, async (afterMs) => {
    const { source, destination } = await startPair({ binary: qemus.get(name)!, memoryMiB: 64, append: "ws=2048 rate=1000 fill=random" });
    const stopped = source.qmp.waitForEvent("STOP", () => true, 60_000);
    const running = await migration({ mode: "direct", source, destination, rate: "20mbit", delay: "20ms" });
    await stopped;
    await sleep(afterMs);
    running.migrate.kill("SIGKILL");
    await ended(running.migrate);
    await sleep(800);
    const runs = async (vm: typeof source) => { const from = vm.serial.lines.length; await sleep(500); return heartbeatsOf(vm.serial.lines.slice(from)).length > 0; };
    const [s, d] = await Promise.all([runs(source), runs(destination)]);
    const st = await source.qmp.execute("query-status"); const mi = await source.qmp.execute("query-migrate");
    process.stderr.write("RES "+[name, afterMs, { s, d }, st.status, mi.status, mi["error-desc"] ?? "", running.migrate.stdout.lines.filter(l=>/phase/.test(l.text)).map(l=>JSON.parse(l.text).phase).join(" ")].map(x=>JSON.stringify(x)).join(" ")+"\n");
    expect(s && d).toBe(false);
  });
