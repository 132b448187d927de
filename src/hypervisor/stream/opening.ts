// What a connection of a QEMU is, by its first bytes. Pure. Facts: QEMU's migration/migration.c and multifd.c.

import { STREAM_MAGIC } from "../../stream/format.ts";

/** As many bytes as tell. */
export const OPENING_BYTES = 4;
/** First bytes of a further channel of a migration with the capability multifd. */
const MULTIFD_MAGIC = 0x11223344;
/** First byte of a TLS connection: content type "handshake" (RFC 8446, 5.1). */
const TLS_HANDSHAKE = 0x16;

export type Opening =
  | { kind: "migration" }
  /** A further channel of a migration, or one of a kind that cannot be carried. */
  | { kind: "refused"; why: string }
  | { kind: "unknown"; why: string };

/** `bytes`: the first OPENING_BYTES of the connection, or more. */
export function openingOf(bytes: Uint8Array): Opening {
  if (bytes[0] === TLS_HANDSHAKE) {
    const why =
      "QEMU encrypts it itself (TLS), so that there is nothing to compress: leave that to the tunnel";
    return { kind: "refused", why };
  }
  const magic = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  if (magic === STREAM_MAGIC) return { kind: "migration" };
  if (magic === MULTIFD_MAGIC) {
    const why =
      "it comes in parallel channels (multifd; virsh migrate --parallel), of which only one can be carried";
    return { kind: "refused", why };
  }
  const text = magic.toString(16).padStart(2 * OPENING_BYTES, "0");
  return { kind: "unknown", why: `it begins with 0x${text}, and is no migration of QEMU's` };
}
