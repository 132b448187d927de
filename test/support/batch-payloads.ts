// Batches like those of a migration, from a seed: text, words that changed (mostly zeros, small numbers and
// addresses), random bytes, and all of it mixed.

export type PayloadKind = "text" | "words" | "random" | "mixed";

const WORDS =
  "page dirty memory the of guest cache delta source link and destination iteration stream to a in batch";

/** xorshift: any seed but 0. */
function generator(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

/** Fills `target`, whose length is its own. */
export function fillPayload(target: Uint8Array, kind: PayloadKind, seed: number): void {
  const random = generator(seed);
  if (kind === "mixed") {
    const kinds: PayloadKind[] = ["text", "words", "random"];
    for (let at = 0; at < target.length; at += 4096)
      fillPayload(target.subarray(at, at + 4096), kinds[random() % 3]!, random());
    return;
  }
  const filled = Buffer.alloc(target.length + 16);
  let at = 0;
  if (kind === "text") {
    const words = WORDS.split(" ");
    while (at < target.length) at += filled.write(`${words[random() % words.length]!} `, at, "latin1");
  } else if (kind === "words") {
    for (; at < target.length; at += 8) {
      const what = random() % 4;
      if (what === 0) filled.writeUInt32LE(random() % 5000, at);
      if (what === 1) filled.writeBigUInt64LE(0x7f1200000000n + BigInt(random() % 100_000) * 16n, at);
      if (what === 2) filled.writeDoubleLE(random() / 7, at);
    }
  } else {
    for (; at < target.length; at += 4) filled.writeUInt32LE(random(), at);
  }
  target.set(filled.subarray(0, target.length));
}
