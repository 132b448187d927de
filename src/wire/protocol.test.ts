// Holds PROTOCOL.md and the code together: its tables and its worked bytes are the fixtures here.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import { workedBytes } from "../../test/support/worked-bytes.ts";
import type { Frame, FrameType } from "./frame.ts";
import {
  CODED_BYTES_MAX,
  DIGESTS_MAX,
  encodeFrame,
  FRAME_LAYOUTS,
  JSON_BYTES_MAX,
  KEEPALIVE_MS,
  PEER_SILENT_MS,
  RAW_BYTES_MAX,
  RETURN_BYTES_MAX,
  VERIFY_PIECE_BYTES_MAX,
  VERIFY_PIECE_BYTES_MIN,
} from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import { abortFrame, helloFrame, refuseFrame } from "./handshake.ts";
import { BATCH_ENTRIES_MAX, decodeRamLayout, encodeRamLayout, readPagesHeader } from "./page-batch.ts";
import type { Side, Stage } from "./protocol-state.ts";
import { ProtocolState } from "./protocol-state.ts";

const PROTOCOL = readFileSync(new URL("./PROTOCOL.md", import.meta.url), "utf8");

/** Rows of the table whose first line begins with these cells. */
function table(...head: string[]): string[][] {
  const rows = PROTOCOL.split("\n").map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  const at = rows.findIndex((row) => head.every((cell, i) => row[i] === cell));
  expect(at).toBeGreaterThan(0);
  const below = rows.slice(at + 2);
  return below.slice(
    0,
    below.findIndex((row) => row.length === 0),
  );
}

const SESSION = "00112233445566778899aabbccddeeff";
const TOKEN = "ffeeddccbbaa99887766554433221100";
const HYPERVISOR = { kind: "qemu", version: "10.0.2" } as const;
const RAW = Uint8Array.of(0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3);
const sha256 = (bytes: Uint8Array) => Uint8Array.from(createHash("sha256").update(bytes).digest());
/** What the worked bytes say. */
const WORKED: Record<Frame["type"], Frame> = {
  hello: helloFrame({
    deltavee: "0.1.0",
    session: SESSION,
    hypervisor: HYPERVISOR,
    entropyCodecs: [4, 1],
    guestRamBytes: 512 * 1024 * 1024,
    postcopy: true,
    verify: true,
    name: "web-1",
  }),
  welcome: {
    type: "welcome",
    version: 6,
    body: {
      deltavee: "0.1.0",
      entropyCodecs: [1],
      hypervisor: HYPERVISOR,
      resumption: { token: TOKEN, timeoutMs: 60_000 },
    },
  },
  data: uncodedData(1, RAW),
  ack: { type: "ack", sequence: 1, pace: { elapsedMs: 300, busyMs: 40 } },
  return: { type: "return", bytes: Uint8Array.of(0, 7, 0, 0) },
  returned: { type: "returned", returnBytes: 4 },
  keepalive: { type: "keepalive" },
  resume: {
    type: "resume",
    version: 6,
    stage: "streaming",
    connection: 2,
    session: SESSION,
    token: TOKEN,
    returnBytes: 4,
  },
  resumed: { type: "resumed", stage: "streaming", dataSequence: 1, ackSequence: 1 },
  loaded: { type: "loaded" },
  verify: { type: "verify", block: "pc.ram", offsetBytes: 1 << 20, pieceBytes: 1 << 20, pieces: 1 },
  digests: {
    type: "digests",
    digests: sha256(new Uint8Array(1 << 20)),
  },
  commit: { type: "commit", resume: true },
  running: { type: "running" },
  done: { type: "done" },
  refuse: refuseFrame("BUSY", "Another migration is under way"),
  abort: abortFrame("CANCELLED", "Cancelled by the operator"),
  ready: { type: "ready" },
};

/** Frame name and bytes, in the order of the page. */
const workedFrames = () => workedBytes(PROTOCOL, "hex");

describe("PROTOCOL.md", () => {
  test("its worked bytes show every type of frame", () => {
    expect(workedFrames().map(([name]) => name)).toEqual(Object.keys(WORKED));
  });

  test("its worked bytes are read as what it says", () => {
    const reader = new FrameReader();
    reader.push(Buffer.concat(workedFrames().map(([, bytes]) => bytes)));
    for (const frame of Object.values(WORKED)) expect(reader.next()).toEqual(frame);
    expect(reader.next()).toBeUndefined();
  });

  test("its worked bytes are what is written", () => {
    for (const [name, bytes] of workedFrames()) {
      const written = Buffer.from(encodeFrame(WORKED[name as FrameType]));
      expect([name, written.toString("hex")]).toEqual([name, bytes.toString("hex")]);
    }
  });

  test("its worked bytes are a migration, at either side", () => {
    for (const side of ["source", "destination"] as const) {
      const frames: (Frame | typeof LOST)[] = Object.values(WORKED);
      frames.splice(frames.indexOf(resume), 0, LOST);
      expect(stateAfter(side, frames.slice(0, frames.indexOf(WORKED.refuse))).stage).toBe("finished");
    }
  });

  test("its stages come to the same end with all of the RAM as in post-copy", () => {
    for (const side of ["source", "destination"] as const) {
      expect(stateAfter(side, [...GIVEN, running, loaded, WORKED.done]).stage).toBe("finished");
    }
  });

  test("its worked payloads are read as what it says", () => {
    const [layout, pages] = workedBytes(PROTOCOL, "hex-payloads").map(([, bytes]) => bytes);
    const said = {
      sectionId: 2,
      pageBytes: 512,
      deltaCodec: 2,
      windowPages: 16,
      baselinePages: 0,
      blocks: [
        { idstr: "pc.ram", lengthBytes: 2048 },
        { idstr: "vga.vram", lengthBytes: 1024 },
      ],
    };
    expect(decodeRamLayout(layout!)).toEqual(said);
    expect(Buffer.from(encodeRamLayout(said)).equals(layout!)).toBe(true);
    const view = new DataView(pages!.buffer, pages!.byteOffset);
    expect(readPagesHeader(view, 0, pages!.length, 512)).toEqual({
      ownSection: true,
      entryCount: 4,
      wholePages: 1,
      dataBytes: 8,
      controlBytes: 2,
      referenceBytes: 4,
      slotBytes: 0,
      addressBytes: 6,
    });
  });

  test("its table of frames names the numbers and the payload lengths of the code", () => {
    const rows = table("type", "frame", "sent by").map(([number, name, , bytes]) => [number, name, bytes]);
    const layouts = Object.entries(FRAME_LAYOUTS).map(([type, layout]) => [
      `${layout.number}`,
      type.toUpperCase(),
      `${layout.payloadBytesMin} to ${layout.payloadBytesMax}`,
    ]);
    expect(rows).toEqual(layouts);
  });

  test("its table of limits names those of the code", () => {
    const limits = {
      RAW_BYTES_MAX,
      CODED_BYTES_MAX,
      RETURN_BYTES_MAX,
      JSON_BYTES_MAX,
      KEEPALIVE_MS,
      PEER_SILENT_MS,
      BATCH_ENTRIES_MAX,
      DIGESTS_MAX,
      VERIFY_PIECE_BYTES_MIN,
      VERIFY_PIECE_BYTES_MAX,
    };
    const rows = Object.entries(limits).map(([name, value]) => [`\`${name}\``, `${value}`]);
    expect(table("name", "value")).toEqual(rows);
  });

  test("its table of stages says exactly what may be sent in each", () => {
    const told = table("stage", "the source may send");
    const done = STAGES.map(([stage, path]) => [
      stage,
      sendable("source", stage, path),
      sendable("destination", stage, path),
    ]);
    expect(told.map(([stage, ...lists]) => [stage, ...lists.map(sorted)])).toEqual(done);
  });
});

const { hello, welcome, data, ack, loaded, commit, running, refuse, resume, ready } = WORKED;
const LOST = "lost";
const LOADED = [hello, welcome, data, ack, loaded];
const GIVEN = [hello, welcome, data, ready, commit, ack];
const STAGES: [Stage, (Frame | typeof LOST)[]][] = [
  ["opening", []],
  ["greeting", [hello]],
  ["streaming", [hello, welcome, data, ack]],
  ["loaded", LOADED],
  ["verifying", [...LOADED, WORKED.verify]],
  ["committed", [...LOADED, commit]],
  ["ready", [hello, welcome, data, ready, ack]],
  ["given", GIVEN],
  ["fetching", [...GIVEN, running]],
  ["finished", [...LOADED, commit, running]],
  ["refused", [hello, refuse]],
  ["aborted", [hello, welcome, WORKED.abort]],
  ["lost", [hello, welcome, data, ack, LOST]],
  ["resuming", [hello, welcome, data, ack, LOST, resume]],
];

function sentBy(type: FrameType): string | undefined {
  return table("type", "frame", "sent by").find(([, name]) => name === type.toUpperCase())?.[2];
}

/** The side's state after it has sent or received `path`, and lost connections where it says so. */
function stateAfter(side: Side, path: (Frame | typeof LOST)[]): ProtocolState {
  const state = new ProtocolState(side);
  for (const frame of path) {
    if (frame === LOST) {
      state.lost();
      continue;
    }
    const sender = sentBy(frame.type);
    if (sender === side || sender === "both") state.sending(frame);
    else state.received(frame);
  }
  return state;
}

/** Types that `side` may send after `path`. */
function sendable(side: Side, stage: Stage, path: (Frame | typeof LOST)[]): string {
  const legal = Object.values(WORKED).filter((frame) => {
    const state = stateAfter(side, path);
    expect(state.stage).toBe(stage);
    try {
      state.sending(frame.type === "data" ? { ...frame, sequence: state.dataSequence + 1 } : frame);
      return true;
    } catch {
      return false;
    }
  });
  return sorted(legal.map((frame) => frame.type.toUpperCase()).join(", "));
}

function sorted(list: string): string {
  return list.split(", ").sort().join(", ");
}
