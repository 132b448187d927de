// A source QEMU whose post-copy was cut off before the guest was given away: it has all of the guest, paused, and no
// command that lets it go on (10.0 refuses migrate_cancel and cont). But it takes up a post-copy that was cut off on
// another connection, and asks there which pages have arrived. Told that all have, it has nothing left to send, completes,
// and then takes `cont`. Nothing of the guest's is changed by it: what a source sends it keeps (release-ram is off).
// Format: QEMU's migration/migration.c, savevm.c and ram.c, 7.2 to 10.x; stream/FORMAT.md, "Post-copy recovery".

import type { Socket } from "node:net";
import { DeltaveeError, toError } from "../../base/errors.ts";
import { listen } from "../../link/address.ts";
import { Command, ReturnPathType, SectionType } from "../../stream/format.ts";
import { returnPathMessage } from "../../stream/return-path.ts";
import { MigrationSocket } from "./migration-socket.ts";
import type { QmpClient } from "./qmp.ts";
import { listRamBlocks } from "./ram-map.ts";

/** For all of it: nothing is sent but a bit for each page. */
const TIMEOUT_MS = 20_000;
const COMMAND_HEADER_BYTES = 5;
/** QEMU counts in words of its bitmap. */
const BITMAP_BYTES_UNIT = 8;
const BITMAP_END = 0x0123456789abcdefn;
const RESUME_ACK_VALUE = 1;

/**
 * Has it complete. To be called for a QEMU in `postcopy-paused` only, and only when nobody else has been told that the
 * guest is his: afterwards it may be let run here. When it fails QEMU is in `postcopy-paused` as before.
 * @throws DeltaveeError
 */
export async function completeCutOffPostcopy(qmp: QmpClient): Promise<void> {
  const blocks = await listRamBlocks(qmp);
  const pageBytes = (await qmp.execute("query-migrate")).ram?.["page-size"];
  if (pageBytes === undefined) throw failed(new Error("QEMU does not say how large its pages are"));
  const bitmapBytes = new Map(
    [...blocks].map(([idstr, { usedBytes }]) => {
      const bytes = Math.ceil(usedBytes / pageBytes / 8);
      return [idstr, Math.ceil(bytes / BITMAP_BYTES_UNIT) * BITMAP_BYTES_UNIT];
    }),
  );
  const socket = await MigrationSocket.create(qmp.address);
  try {
    await beDestination(qmp, socket, bitmapBytes);
  } catch (thrown) {
    throw failed(toError(thrown));
  } finally {
    await socket.remove();
  }
}

/** Resolves when QEMU has said all that it has to say. */
async function beDestination(
  qmp: QmpClient,
  migrationSocket: MigrationSocket,
  bitmapBytes: ReadonlyMap<string, number>,
): Promise<void> {
  const { path } = migrationSocket;
  let connection: Socket | undefined;
  let timer: NodeJS.Timeout | undefined;
  let settle: { resolve: () => void; reject: (error: Error) => void };
  const done = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
    timer = setTimeout(() => reject(new Error(`it took more than ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
  });
  const listener = await listen(
    { kind: "unix", path },
    {
      onConnection(socket) {
        connection = socket;
        const answers = new RecoveryAnswers(bitmapBytes);
        socket.on("data", (chunk: Buffer) => {
          try {
            for (const answer of answers.to(chunk)) socket.write(answer);
          } catch (thrown) {
            settle.reject(toError(thrown));
          }
        });
        socket.on("end", () => {
          if (answers.isResumed) settle.resolve();
          else settle.reject(new Error("QEMU closed the connection before it had asked what has arrived"));
        });
        socket.on("error", (error) => settle.reject(error));
      },
      onError: (error) => settle.reject(error),
    },
    { connectionsMax: 1 },
  );
  try {
    await migrationSocket.giveToQemu();
    await Promise.all([done, qmp.execute("migrate", { uri: `unix:${path}`, resume: true })]);
  } finally {
    clearTimeout(timer);
    listener.close();
    connection?.destroy();
  }
}

/** What a destination that lacks nothing answers to the commands of a source that goes on. */
export class RecoveryAnswers {
  readonly #bitmapBytes: ReadonlyMap<string, number>;
  #pending: Buffer = Buffer.alloc(0);
  /** The source knows what has arrived. What follows is the rest of its stream, which nobody needs. */
  isResumed = false;

  /** `bitmapBytes`: by RAMBlock, one bit for each of its pages. */
  constructor(bitmapBytes: ReadonlyMap<string, number>) {
    this.#bitmapBytes = bitmapBytes;
  }

  /** @throws Error for what no source would say */
  to(chunk: Buffer): Buffer[] {
    const answers: Buffer[] = [];
    if (this.isResumed) return answers;
    this.#pending = Buffer.concat([this.#pending, chunk]);
    while (!this.isResumed && this.#pending.length >= COMMAND_HEADER_BYTES) {
      const type = this.#pending[0]!;
      if (type !== SectionType.COMMAND)
        throw new Error(`QEMU sent an element of type ${type}, not a command`);
      const endBytes = COMMAND_HEADER_BYTES + this.#pending.readUInt16BE(3);
      if (this.#pending.length < endBytes) break;
      const command = this.#pending.readUInt16BE(1);
      const payload = this.#pending.subarray(COMMAND_HEADER_BYTES, endBytes);
      this.#pending = this.#pending.subarray(endBytes);
      if (command === Command.RECV_BITMAP) answers.push(this.#allReceived(payload));
      else if (command === Command.POSTCOPY_RESUME) {
        this.isResumed = true;
        answers.push(returnPathMessage(ReturnPathType.RESUME_ACK, RESUME_ACK_VALUE));
        answers.push(returnPathMessage(ReturnPathType.SHUT, 0));
      }
    }
    return answers;
  }

  #allReceived(payload: Buffer): Buffer {
    const idstr = payload.toString("latin1", 1, 1 + (payload[0] ?? 0));
    const bytes = this.#bitmapBytes.get(idstr);
    if (bytes === undefined) throw new Error(`QEMU asked for a RAMBlock that it does not list: "${idstr}"`);
    const headerBytes = 4 + payload.length;
    const answer = Buffer.alloc(headerBytes + 8 + bytes + 8, 0xff);
    answer.writeUInt16BE(ReturnPathType.RECV_BITMAP, 0);
    answer.writeUInt16BE(payload.length, 2);
    payload.copy(answer, 4);
    answer.writeBigUInt64BE(BigInt(bytes), headerBytes);
    answer.writeBigUInt64BE(BITMAP_END, headerBytes + 8 + bytes);
    return answer;
  }
}

function failed(cause: Error): DeltaveeError {
  const text = `The post-copy that was cut off could not be brought to an end here: ${cause.message}`;
  return new DeltaveeError("HYPERVISOR_FAILED", text, { cause });
}
