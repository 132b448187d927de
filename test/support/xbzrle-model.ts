// XBZRLE byte by byte, the obvious way: what tests hold the real codec and the engine against. It shares no
// code with src/codec. Grammar: src/codec/FORMAT.md.

function length(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, Math.floor(value / 128)];
}

/** Delta from `before` to `after`, or undefined when there is none that is smaller than the page. */
export function modelEncode(before: Uint8Array, after: Uint8Array): Uint8Array | undefined {
  const delta: number[] = [];
  let at = 0;
  while (at < after.length) {
    let skipped = 0;
    while (at + skipped < after.length && before[at + skipped] === after[at + skipped]) skipped++;
    at += skipped;
    if (at === after.length) break;
    let changed = 0;
    while (at + changed < after.length && before[at + changed] !== after[at + changed]) changed++;
    delta.push(...length(skipped), ...length(changed));
    for (let i = 0; i < changed; i++) delta.push(after[at + i]!);
    at += changed;
    if (delta.length >= after.length) return undefined;
  }
  return delta.length === 0 ? undefined : Uint8Array.from(delta);
}

/** Applies `delta` to `page` in place. @throws Error for anything that is not a delta of such a page */
export function modelDecode(delta: Uint8Array, page: Uint8Array): void {
  let read = 0;
  let written = 0;
  const next = (): number => {
    const byte = delta[read++];
    if (byte === undefined) throw new Error("delta ends too early");
    return byte;
  };
  const nextLength = (): number => {
    const low = next();
    return low < 128 ? low : low - 128 + 128 * next();
  };
  if (delta.length === 0 || delta.length > page.length) throw new Error(`delta of ${delta.length} bytes`);
  while (read < delta.length) {
    const skipped = nextLength();
    if (skipped === 0 && written > 0) throw new Error("empty zero run");
    written += skipped;
    const changed = nextLength();
    if (changed === 0) throw new Error("empty run");
    for (let i = 0; i < changed; i++) {
      if (written >= page.length) throw new Error("delta leaves the page");
      page[written++] = next();
    }
  }
}
