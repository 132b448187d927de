// RAM of a guest that stands still, compared at both ends before it is given away (`--verify`): digests of pieces of it,
// and the comparison at the source. What is read, and how, is the hypervisor's; how it is asked and answered, the
// tunnel's (wire/PROTOCOL.md, "VERIFY").

import { createHash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { DeltaveeError, IntegrityError } from "../base/errors.ts";
import {
  DIGEST_BYTES,
  DIGESTS_MAX,
  isBlockName,
  VERIFY_PIECE_BYTES_MAX,
  VERIFY_PIECE_BYTES_MIN,
  type VerifyFrame,
} from "../wire/frame.ts";
import type { StoppedRam } from "./ports.ts";

const DIGEST = "sha256";

/** @throws DeltaveeError VERIFY_UNAVAILABLE where the hypervisor cannot show it */
export async function openStoppedRam(vm: {
  readonly description: string;
  openRam?(): Promise<StoppedRam>;
}): Promise<StoppedRam> {
  const ram = await vm.openRam?.();
  if (ram !== undefined) return ram;
  throw new DeltaveeError("VERIFY_UNAVAILABLE", `${vm.description} does not show its RAM`);
}

type Pieces = Omit<VerifyFrame, "type">;

export interface RamBlockToVerify {
  readonly idstr: string;
  readonly lengthBytes: number;
}

export interface Verification {
  comparedBytes: number;
  /** RAMBlocks that could not be read at the source: RAM that no guest address leads to at the moment. */
  leftOut: string[];
}

/**
 * @returns the digests of the pieces, the last of which may end with the block; undefined: not wanted any more
 * @throws DeltaveeError VERIFY_UNAVAILABLE for what cannot be read here
 */
export async function digestsOf(
  ram: StoppedRam,
  { block, offsetBytes, pieceBytes, pieces }: Pieces,
  isWanted: () => boolean,
): Promise<Uint8Array | undefined> {
  const lengthBytes = ram.lengthOf(block);
  const lastBytes = (lengthBytes ?? 0) - offsetBytes - (pieces - 1) * pieceBytes;
  if (lengthBytes === undefined || offsetBytes % VERIFY_PIECE_BYTES_MIN !== 0 || lastBytes <= 0) {
    const what = `${pieces} pieces of ${pieceBytes} bytes at ${offsetBytes} of RAMBlock ${block}`;
    throw new DeltaveeError("VERIFY_UNAVAILABLE", `There are no ${what} to be read here`);
  }
  const digests = new Uint8Array(pieces * DIGEST_BYTES);
  const read = new Uint8Array(VERIFY_PIECE_BYTES_MAX);
  const piecesPerRead = VERIFY_PIECE_BYTES_MAX / pieceBytes;
  for (let first = 0; first < pieces; first += piecesPerRead) {
    if (!isWanted()) return undefined;
    const at = offsetBytes + first * pieceBytes;
    const endBytes = Math.min(lengthBytes, offsetBytes + pieces * pieceBytes, at + read.length);
    const bytes = read.subarray(0, endBytes - at);
    await ram.read(block, at, bytes);
    for (let start = 0; start < bytes.length; start += pieceBytes) {
      const digest = createHash(DIGEST)
        .update(bytes.subarray(start, start + pieceBytes))
        .digest();
      digests.set(digest, (first + start / pieceBytes) * DIGEST_BYTES);
    }
  }
  return digests;
}

/** How fast this host does that, reading apart. Takes some milliseconds. */
export function measureDigestBytesPerSecond(): number {
  const bytes = new Uint8Array(VERIFY_PIECE_BYTES_MAX);
  const startMs = performance.now();
  const rounds = 8;
  for (let i = 0; i < rounds; i++) createHash(DIGEST).update(bytes).digest();
  return (rounds * bytes.length * 1000) / (performance.now() - startMs);
}

/** Compares the RAM of the source with what the destination says of its own. Asks one question at a time. */
export class RamComparison {
  readonly #ram: StoppedRam;
  readonly #ask: (pieces: Pieces) => void;
  readonly #pieceBytes: number;
  #answer: ((digests: Uint8Array) => void) | undefined;
  #isOver = false;

  constructor(ram: StoppedRam, ask: (pieces: Pieces) => void, pieceBytes: number = VERIFY_PIECE_BYTES_MAX) {
    this.#ram = ram;
    this.#ask = ask;
    this.#pieceBytes = pieceBytes;
  }

  /**
   * Undefined: it was stopped.
   * @throws IntegrityError for the first page that differs; DeltaveeError when RAM cannot be read
   */
  async run(blocks: readonly RamBlockToVerify[]): Promise<Verification | undefined> {
    const isHere = ({ idstr }: RamBlockToVerify) =>
      isBlockName(idstr) && this.#ram.lengthOf(idstr) !== undefined;
    const verification: Verification = {
      comparedBytes: 0,
      leftOut: blocks.filter((block) => !isHere(block)).map(({ idstr }) => idstr),
    };
    for (const { idstr: block, lengthBytes } of blocks.filter(isHere)) {
      const pieceBytes = this.#pieceBytes;
      for (let offsetBytes = 0; offsetBytes < lengthBytes; ) {
        const pieces = Math.min(DIGESTS_MAX, Math.ceil((lengthBytes - offsetBytes) / pieceBytes));
        const differing = await this.#firstDiffering({ block, offsetBytes, pieceBytes, pieces });
        if (this.#isOver) return undefined;
        if (differing !== undefined) {
          const at = offsetBytes + differing * pieceBytes;
          await this.#namePage(block, at, Math.min(pieceBytes, lengthBytes - at));
          // Page by page it is equal: it has changed since, at an end at which it should not.
          throw differs(block, at, "it changes although the guest stands still");
        }
        offsetBytes += pieces * pieceBytes;
      }
      verification.comparedBytes += lengthBytes;
    }
    if (verification.comparedBytes > 0 || this.#isOver) return verification;
    throw new DeltaveeError("VERIFY_UNAVAILABLE", "None of the guest's RAMBlocks can be read at the source");
  }

  /** The destination's answer to what was asked last. Borrowed during the call. */
  answered(digests: Uint8Array): void {
    const answer = this.#answer;
    this.#answer = undefined;
    answer?.(Uint8Array.from(digests));
  }

  /** No more questions. A question that is under way is not waited for. */
  stop(): void {
    this.#isOver = true;
    this.answered(new Uint8Array());
  }

  async #namePage(block: string, offsetBytes: number, lengthBytes: number): Promise<void> {
    const pieceBytes = VERIFY_PIECE_BYTES_MIN;
    const pieces = Math.ceil(lengthBytes / pieceBytes);
    const page = await this.#firstDiffering({ block, offsetBytes, pieceBytes, pieces });
    if (page !== undefined && !this.#isOver) throw differs(block, offsetBytes + page * pieceBytes);
  }

  /** Index of the first piece whose digest is another one at the destination. Both sides compute at the same time. */
  async #firstDiffering(pieces: Pieces): Promise<number | undefined> {
    const theirs = new Promise<Uint8Array>((resolve) => {
      this.#answer = resolve;
    });
    this.#ask(pieces);
    const ours = await digestsOf(this.#ram, pieces, () => !this.#isOver);
    const answer = Buffer.from(await theirs);
    if (ours === undefined || this.#isOver) return undefined;
    assert(answer.length === ours.length, "the protocol has seen to it that each piece has its digest");
    for (let piece = 0; piece < pieces.pieces; piece++) {
      const [start, end] = [piece * DIGEST_BYTES, (piece + 1) * DIGEST_BYTES];
      if (answer.compare(ours, start, end, start, end) !== 0) return piece;
    }
    return undefined;
  }
}

function differs(block: string, offsetBytes: number, why?: string): IntegrityError {
  const page = offsetBytes / VERIFY_PIECE_BYTES_MIN;
  const text =
    `The guest's memory has not arrived as it is: page ${page} of RAMBlock ${block} (4 KiB at offset ` +
    `0x${offsetBytes.toString(16)}) differs between the two sides${why === undefined ? "" : `: ${why}`}`;
  return new IntegrityError(text, block, page);
}
