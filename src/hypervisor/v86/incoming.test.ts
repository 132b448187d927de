import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { END, PART, StreamBuilder } from "../../../test/support/stream-builder.ts";
import type { Channel } from "../../engine/ports.ts";
import { V86Incoming } from "./incoming.ts";
import { VmHost } from "./vm-host.ts";

const MEMORY_BYTES = 8 * 1024 * 1024;
const PAGE = Buffer.alloc(4096, 0x77);
/** More than waits for the VM's thread at any time. */
const PAGES = 800;
const PIECE_BYTES = 100_000;

const hosts: VmHost[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.dispose();
});

interface Scene {
  host: VmHost;
  vm: V86Incoming;
  channel: Channel;
  returned: Buffer[];
  drained: () => Promise<void>;
}

async function open(): Promise<Scene> {
  const host = await VmHost.open({ memoryBytes: MEMORY_BYTES });
  hosts.push(host);
  const vm = new V86Incoming(host, { version: "test" });
  const channel = await vm.begin();
  const returned: Buffer[] = [];
  let wake = () => {};
  channel.listen({
    data: (bytes) => returned.push(Buffer.from(bytes)),
    drained: () => wake(),
    ended: () => {},
    failed: () => {},
  });
  const drained = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  return { host, vm, channel, returned, drained };
}

function ram(): StreamBuilder {
  const builder = new StreamBuilder().header().configuration("v86");
  builder
    .start(1, [{ idstr: "ram", pages: MEMORY_BYTES / 4096 }])
    .endSection()
    .section(PART);
  for (let i = 0; i < PAGES; i++) builder.page(0, i, PAGE);
  return builder.endSection();
}

/** The state of a VM that has not run: that of another destination will do. */
async function deviceState(): Promise<Uint8Array> {
  const elf = readFileSync(new URL("../../../guest/guest.elf", import.meta.url));
  const source = await VmHost.open({ memoryBytes: MEMORY_BYTES, kernel: { elf, commandLine: "ws=1024" } });
  hosts.push(source);
  return source.saveDeviceState();
}

describe("a v86 destination", () => {
  it("makes the sender wait while its VM is behind, acknowledges what is loaded, and gives its verdict once", async () => {
    const { host, vm, channel, returned, drained } = await open();
    const bytes = ram()
      .section(END)
      .endSection()
      .device("v86", await deviceState())
      .verbatim(Buffer.of(0)).bytes;
    let acknowledged = 0;
    let waits = 0;
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const piece = bytes.subarray(at, at + PIECE_BYTES);
      const flowing = channel.write(piece, () => {
        acknowledged += piece.length;
      });
      if (flowing) continue;
      waits++;
      await drained();
    }
    await vm.loaded();
    expect(waits).toBeGreaterThan(0);
    expect(acknowledged).toBe(bytes.length);
    expect(returned.map((message) => message.toString("hex"))).toEqual(["0001000400000000"]);
    const page = Buffer.alloc(4096);
    await host.readPages(Uint32Array.of(PAGES - 1), page);
    expect(page.equals(PAGE)).toBe(true);
    channel.destroy(); // The engine is done with it: the VM is not.
    await vm.resume();
  });

  it("says why it could not load a stream, runs nothing, and takes no more", async () => {
    const { vm, channel, returned } = await open();
    let acknowledged = false;
    channel.write(Buffer.from("not a stream"), () => {
      acknowledged = true;
    });
    await expect(vm.loaded()).rejects.toMatchObject({ code: "STREAM_CORRUPT" });
    expect(acknowledged).toBe(false);
    expect(channel.write(Buffer.of(1))).toBe(false);
    expect(returned).toEqual([]);
    await expect(vm.resume()).rejects.toThrow("a machine that is incoming cannot run");
  });

  it.each(["end", "destroy"] as const)("has not loaded a stream that is cut short by %s", async (cut) => {
    const { vm, channel, returned } = await open();
    channel.write(ram().bytes);
    channel[cut]();
    await expect(vm.loaded()).rejects.toMatchObject({ code: "HYPERVISOR_FAILED" });
    expect(returned).toEqual([]);
    await vm.discard();
    await expect(vm.resume()).rejects.toThrow("disposed");
  });
});
