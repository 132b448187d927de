// DATA frames whose raw bytes are sent as they are.

import { ENTROPY_NONE } from "../../src/codec/entropy/entropy-coder.ts";
import { hash32 } from "../../src/codec/hash32.ts";
import type { DataFrame } from "../../src/wire/frame.ts";
import { PAYLOAD_STREAM, type PayloadKind } from "../../src/wire/page-batch.ts";

export function uncodedData(
  sequence: number,
  raw: Uint8Array,
  payloadKind: PayloadKind = PAYLOAD_STREAM,
): DataFrame {
  return {
    type: "data",
    sequence,
    entropyCodec: ENTROPY_NONE,
    payloadKind,
    rawBytes: raw.length,
    rawChecksum: hash32(raw),
    coded: raw,
  };
}
