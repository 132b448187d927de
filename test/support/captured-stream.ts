// The migration stream of a real QEMU whose guest is at work, kept as it came out, and two ways to play it again:
// straight into another QEMU, and to the engines as if the hypervisor were there. What differs between two
// destinations of the same bytes is nobody's doing but ours: QEMU and its guest have had their say before.

import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Channel, OutgoingEnd, OutgoingStatus, OutgoingVm } from "../../src/engine/ports.ts";
import { type Address, connect, type Listener, listen } from "../../src/link/address.ts";
import { SocketChannel } from "../../src/link/socket-channel.ts";
import { ReturnPathType } from "../../src/stream/format.ts";
import { ReturnPathReader, returnPathMessage, shutValue } from "../../src/stream/return-path.ts";
import { type TempFolder, tempFolder } from "./processes.ts";
import type { QemuVm } from "./qemu-vm.ts";

const TIMEOUT_MS = 120_000;
const CONNECT_TIMEOUT_MS = 10_000;
const POLL_EVERY_MS = 20;
/** At up to 64 KiB each: more than the state of all devices. */
const TAIL_CHUNKS = 64;
const UNLIMITED_BYTES_PER_SECOND = 100e9;
/** QEMU takes no more: it stops the guest whatever is left. */
const DOWNTIME_LIMIT_MS_MAX = 2_000_000;

export interface CapturedStream {
  readonly bytes: Buffer;
  readonly guestRamBytes: number;
  /** Passes over the RAM, as QEMU counts them. */
  readonly iterations: number;
  /** Pages that were not zero, each time that they were sent. */
  readonly pagesSent: number;
}

/**
 * Has the VM migrate into our memory, no faster than `bytesPerSecond`, and stops its guest after `iterations`. The
 * guest stands still afterwards, with the memory that the stream should have brought over.
 */
export async function captureStream(
  vm: QemuVm,
  { iterations, bytesPerSecond }: { iterations: number; bytesPerSecond: number },
): Promise<CapturedStream> {
  const { qmp } = vm;
  const path = join(vm.folder, "capture.sock");
  const [listener, connected] = await acceptOne({ kind: "unix", path });
  try {
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "events", state: true },
        { capability: "return-path", state: true },
      ],
    });
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": bytesPerSecond, "downtime-limit": 1 });
    const stopped = qmp.waitForEvent("STOP", () => true, TIMEOUT_MS);
    const completed = qmp.waitForEvent("MIGRATION", ({ data }) => isEnd(data.status), TIMEOUT_MS);
    await qmp.execute("migrate", { uri: `unix:${path}` });
    const socket = await connected;
    const chunks: Buffer[] = [];
    const ended = new Promise<void>((resolve, reject) => {
      socket.on("data", (chunk) => chunks.push(chunk));
      socket.on("end", resolve);
      socket.on("error", reject);
      socket.resume();
    });
    while (((await qmp.execute("query-migrate")).ram?.["dirty-sync-count"] ?? 0) < iterations) {
      await sleep(POLL_EVERY_MS);
    }
    await qmp.execute("migrate-set-parameters", {
      "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
      "downtime-limit": DOWNTIME_LIMIT_MS_MAX,
    });
    await stopped;
    // Not before QEMU has sent everything: 7.2 closes the connection as soon as it has the verdict.
    while (!isComplete(Buffer.concat(chunks.slice(-TAIL_CHUNKS)))) await sleep(POLL_EVERY_MS);
    socket.write(returnPathMessage(ReturnPathType.SHUT, 0));
    const { status } = (await completed).data;
    if (status !== "completed") throw new Error(`The migration into memory ended as ${status}`);
    await ended;
    const { ram } = await qmp.execute("query-migrate");
    return {
      bytes: Buffer.concat(chunks),
      guestRamBytes: vm.memoryBytes,
      iterations: ram!["dirty-sync-count"],
      pagesSent: ram!.normal,
    };
  } finally {
    listener.close();
  }
}

/** What a destination started with `incoming: "defer"` and `paused` gives: its socket, and when it has loaded. */
export async function openIncoming(vm: QemuVm): Promise<{ socket: Socket; loaded: Promise<void> }> {
  const address = { kind: "unix", path: join(vm.folder, "incoming.sock") } as const;
  await vm.qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
  const loaded = vm.qmp
    .waitForEvent("MIGRATION", ({ data }) => isEnd(data.status), TIMEOUT_MS)
    .then(({ data }) => {
      if (data.status !== "completed") throw new Error(`The destination ended as ${data.status}`);
    });
  await vm.qmp.execute("migrate-incoming", { uri: `unix:${address.path}` });
  return { socket: await connect(address, CONNECT_TIMEOUT_MS), loaded };
}

/** Into a QEMU with nothing of ours in between. Resolves when it has loaded everything. */
export async function playInto(vm: QemuVm, stream: Uint8Array): Promise<void> {
  const { socket, loaded } = await openIncoming(vm);
  socket.on("error", () => {
    // It closes when it has what it needs, or when it could not load it, which `loaded` tells.
  });
  socket.resume();
  socket.write(stream);
  await loaded;
  socket.destroy();
}

/** The hypervisor of a source, of which there is nothing but the stream that it once sent. */
export class CapturedOutgoing implements OutgoingVm {
  readonly description = "captured stream";
  readonly switchoverControl = "limit";
  readonly awaitsDestinationAck = false;
  readonly wasRunning = true;
  /** As if this were not the first pass: its pages are to be looked at, however fast they cross. */
  readonly firstPassEnded = Promise.resolve();
  readonly ended: Promise<OutgoingEnd>;
  readonly #stream: Uint8Array;
  #resolveEnded!: (end: OutgoingEnd) => void;

  constructor(stream: Uint8Array) {
    this.#stream = stream;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  async begin(): Promise<Channel> {
    const { sockets, close } = await socketPair();
    const [ours, theirs] = sockets;
    const returnPath = new ReturnPathReader();
    ours.on("data", (bytes) => {
      for (const message of returnPath.push(bytes)) {
        const verdict = shutValue(message);
        if (verdict === 0) this.#resolveEnded({ outcome: "completed" });
        else if (verdict !== undefined) this.#fail(`the destination's verdict is ${verdict}`);
      }
    });
    ours.on("error", (error) => this.#fail(error.message));
    ours.on("close", () => {
      this.#fail("the engine has closed the stream");
      close();
    });
    ours.write(this.#stream);
    return new SocketChannel(theirs);
  }

  async limitSwitchover(): Promise<void> {}

  async status(): Promise<OutgoingStatus> {
    return { iteration: 1 };
  }

  async cancel(): Promise<void> {
    this.#resolveEnded({ outcome: "cancelled", reason: "cancelled" });
  }

  async resume(): Promise<void> {
    throw new Error("There is no guest to resume");
  }

  async isRunning(): Promise<boolean> {
    return false;
  }

  #fail(reason: string): void {
    this.#resolveEnded({ outcome: "failed", reason });
  }
}

/** Two ends of one connection. */
export async function socketPair(): Promise<{ sockets: [Socket, Socket]; close: () => void }> {
  const folder: TempFolder = tempFolder();
  const address = { kind: "unix", path: join(folder.path, "pair.sock") } as const;
  const [listener, accepted] = await acceptOne(address);
  const first = await connect(address, CONNECT_TIMEOUT_MS);
  const second = await accepted;
  return {
    sockets: [first, second],
    close: () => {
      listener.close();
      folder.remove();
    },
  };
}

async function acceptOne(address: Address): Promise<[Listener, Promise<Socket>]> {
  let accept: (socket: Socket) => void = () => {};
  let refuse: (error: Error) => void = () => {};
  const accepted = new Promise<Socket>((resolve, reject) => {
    [accept, refuse] = [resolve, reject];
  });
  // Whoever never waits for it is not to be ended by it.
  accepted.catch(() => {});
  const handlers = { onConnection: (s: Socket) => accept(s), onError: (e: Error) => refuse(e) };
  return [await listen(address, handlers, { pauseOnConnect: true }), accepted];
}

/** What a stream of QEMU ends with is a description of the devices: 6, its length (be32), JSON. */
function isComplete(tail: Buffer): boolean {
  for (let at = tail.length - 6; at >= 0; at--) {
    if (tail[at] !== 6 || tail[at + 5] !== "{".charCodeAt(0)) continue;
    if (tail.readUInt32BE(at + 1) === tail.length - at - 5) return true;
  }
  return false;
}

function isEnd(status: string): boolean {
  return status === "completed" || status === "failed";
}
