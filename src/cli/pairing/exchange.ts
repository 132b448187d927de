// Two hosts get to know each other by a code that a person carries from one to the other (decision 16). Over TLS with
// certificates that nobody vouches for yet, each side shows that it knows the code: an HMAC, keyed with the code, over
// both certificates and over what this very TLS connection alone has in common. Whoever stands in between has two
// connections, and no code. Pure but for randomness; sockets are the caller's.

import { createHmac, randomInt, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { ProtocolError } from "../../base/errors.ts";
import { isPeerName } from "../../library/paired-keys.ts";

/** Without those that are taken for each other: 32 characters, 5 bits each. */
const ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
const CODE_CHARS = 16;
const GROUP_CHARS = 4;

export const PAIRING_LABEL = "EXPORTER-deltavee-pairing";
export const BINDING_BYTES = 32;
const MAGIC = Buffer.from("DVPAIR1\0");
const MAC_BYTES = 32;
const NAME_BYTES_MAX = 253;
/** Longest message: magic, length and name, and the MAC. */
export const MESSAGE_BYTES_MAX: number = MAGIC.length + 1 + NAME_BYTES_MAX + MAC_BYTES;
/** 16 MiB and some 50 ms for each guess. */
const SCRYPT = { N: 2 ** 14, r: 8, p: 1 };

/** "K7QM-2XPD-9HTV-4WRC": 80 bits. */
export function newCode(): string {
  const characters = Array.from({ length: CODE_CHARS }, () => ALPHABET[randomInt(ALPHABET.length)]!);
  return characters.join("").replace(/(.{4})(?=.)/g, "$1-");
}

/** As it was made, however it was typed: undefined when it cannot have been meant. */
export function normalCode(typed: string): string | undefined {
  const characters = typed.toUpperCase().replace(/[\s-]/g, "");
  if (characters.length !== CODE_CHARS || [...characters].some((each) => !ALPHABET.includes(each)))
    return undefined;
  const groups: string[] = [];
  for (let at = 0; at < CODE_CHARS; at += GROUP_CHARS) groups.push(characters.slice(at, at + GROUP_CHARS));
  return groups.join("-");
}

export type PairingSide = "listening" | "connecting";

/** What both sides have to agree on without saying it. */
export interface PairingGround {
  /** A normal one. */
  code: string;
  /** What this TLS connection alone has (PAIRING_LABEL, BINDING_BYTES). */
  binding: Uint8Array;
  /** SHA-256 of each side's certificate, hex: the binding does not cover the one that connects. */
  fingerprints: Readonly<Record<PairingSide, string>>;
}

/** Makes what one side says, and judges what the other one has said. */
export class PairingExchange {
  readonly #ground: PairingGround;
  readonly #key: Buffer;

  static async over(ground: PairingGround): Promise<PairingExchange> {
    // The binding is the salt: what was computed for one connection is of no use for another.
    const key = await stretch(ground.code, ground.binding);
    return new PairingExchange(ground, key);
  }

  private constructor(ground: PairingGround, key: Buffer) {
    this.#ground = ground;
    this.#key = key;
  }

  /** `name`: how the side calls itself, for people. */
  message(side: PairingSide, name: string): Buffer {
    const own = Buffer.from(name);
    const head = Buffer.concat([MAGIC, Buffer.of(own.length), own]);
    return Buffer.concat([head, this.#mac(side, head)]);
  }

  /** The name of the other side, which knows the code. @throws ProtocolError when it does not */
  read(side: PairingSide, message: Uint8Array): string {
    const { head, mac, name } = splitMessage(message);
    if (!timingSafeEqual(mac, this.#mac(side, head))) {
      throw new ProtocolError(
        "PROTOCOL_REFUSED",
        "The other side does not know the code, or is not who it seems",
      );
    }
    return name;
  }

  #mac(side: PairingSide, head: Uint8Array): Buffer {
    const { listening, connecting } = this.#ground.fingerprints;
    return createHmac("sha256", this.#key)
      .update(`${side}\0${listening}\0${connecting}\0`)
      .update(head)
      .digest();
  }
}

/** How long the message is that begins so; undefined: not to be told yet. @throws ProtocolError when it is none */
export function messageBytes(begun: Uint8Array): number | undefined {
  const seen = Math.min(begun.length, MAGIC.length);
  if (!MAGIC.subarray(0, seen).equals(begun.subarray(0, seen))) throw invalid();
  const nameBytes = begun[MAGIC.length];
  if (nameBytes === undefined) return undefined;
  if (nameBytes === 0 || nameBytes > NAME_BYTES_MAX) throw invalid();
  return MAGIC.length + 1 + nameBytes + MAC_BYTES;
}

/** Says nothing of the code: whoever sends anything else is not worth the stretching of it. @throws ProtocolError */
export function checkForm(message: Uint8Array): void {
  splitMessage(message);
}

function splitMessage(message: Uint8Array): { head: Uint8Array; mac: Uint8Array; name: string } {
  if (messageBytes(message) !== message.length) throw invalid();
  const head = message.subarray(0, message.length - MAC_BYTES);
  const name = Buffer.from(head.subarray(MAGIC.length + 1)).toString("latin1");
  if (!isPeerName(name)) throw invalid();
  return { head, mac: message.subarray(message.length - MAC_BYTES), name };
}

function invalid(): ProtocolError {
  return new ProtocolError(
    "PROTOCOL_INVALID_FRAME",
    "What the other side says is no message of deltavee pair",
  );
}

function stretch(code: string, salt: Uint8Array): Promise<Buffer> {
  const derive = promisify(scrypt) as (
    password: string,
    salt: Uint8Array,
    keyBytes: number,
    options: typeof SCRYPT,
  ) => Promise<Buffer>;
  return derive(code, salt, MAC_BYTES, SCRYPT);
}
