// A whole small migration through the tunnel, with every byte that either side said: what scripts/record-protocol.mjs has
// each version of this program write, and src/engine/upgrade.test.ts replays. Uses nothing that versions before have not.

import { createHash } from "node:crypto";
import { encodeFrame } from "../../src/wire/frame.ts";
import { answerHello, helloFrame, PROTOCOL_VERSION } from "../../src/wire/handshake.ts";
import { buildGuestStream, type PlannedPage, type StreamPlan } from "./arbitrary-stream.ts";
import { Migration } from "./simulated-migration.ts";

export interface Recording {
  what: string;
  protocolVersion: number;
  /** The hypervisor's stream, base64. */
  stream: string;
  /** Where in it the guest is stopped. */
  stopsAt: number;
  /** SHA-256 of each RAMBlock on arrival, as far as the stream has set its pages. */
  ram: Record<string, string>;
  /** Who wrote, and what, base64, in this order. */
  said: (readonly ["source" | "destination", string])[];
  /** What a destination of this version says to a source that speaks later ones only, base64. */
  refusal: string;
}

const page = (at: number, change: PlannedPage["change"]): PlannedPage => {
  return { at, change, seed: at + 1, asXbzrle: false, whole: false, names: false };
};

const PLAN: StreamPlan = {
  machine: "pc",
  pageBits: undefined,
  uuid: false,
  ignoreShared: false,
  returnPath: true,
  sectionId: 2,
  blocks: [
    { idstr: "pc.ram", pages: 4 },
    { idstr: "vga.vram", pages: 2 },
  ],
  seed: 11,
  firstPassPages: 3,
  passes: [
    { pages: [page(0, "sparse"), page(1, "rewrite"), page(4, "zero")], pings: [7] },
    { pages: [page(0, "sparse"), page(1, "sparse"), page(2, "same")], pings: [] },
  ],
  last: { pages: [page(1, "sparse"), page(5, "sparse")], pings: [] },
  switchoverStart: true,
  devicePayload: new Uint8Array(300).fill(3),
  unknown: "none",
  unknownSection: 0,
  unknownPages: 0,
};

export async function recordConversation(): Promise<Recording> {
  const stream = buildGuestStream(PLAN);
  const migration = new Migration({ mode: "tunnel", stream, cacheBytes: 1 << 20, resumption: {} });
  const said: [side: "source" | "destination", bytes: string][] = [];
  for (const side of ["source", "destination"] as const) {
    const channel = migration[`${side}End`];
    const { onWrite } = channel;
    channel.onWrite = (bytes) => {
      said.push([side, Buffer.from(bytes).toString("base64")]);
      onWrite(bytes);
    };
  }
  await migration.run();
  if (migration.sourceOutcome?.outcome !== "completed") throw new Error("What was to be recorded has failed");
  const own = {
    deltavee: "0.1.0",
    entropyCodecs: [1],
    hypervisor: { kind: "qemu" as const, version: "10.0.2" },
  };
  const later = { min: PROTOCOL_VERSION + 1, max: PROTOCOL_VERSION + 1 };
  const newer = { ...helloFrame({ ...own, session: "00".repeat(16) }), versions: later };
  return {
    what: "A migration of six pages, some of them changed in two passes, without a fault",
    protocolVersion: PROTOCOL_VERSION,
    stream: Buffer.from(stream.bytes).toString("base64"),
    stopsAt: stream.stopsAt,
    ram: Object.fromEntries(migration.loader!.blocks.map(({ idstr, bytes }) => [idstr, sha256(bytes)])),
    said,
    refusal: Buffer.from(encodeFrame(answerHello(newer, own))).toString("base64"),
  };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
