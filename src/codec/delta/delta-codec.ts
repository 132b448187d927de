// The one interface of all delta codecs of the tunnel: how the change of a page that the destination already holds
// is written into a batch. Each codec fills two streams, so that like stands beside like for the entropy coder:
// *control* (what changed) and *data* (the changed bytes). Addresses are in the home memory; formats: ../FORMAT.md.
//
// A destination engine holds no copy of guest RAM. Codecs whose deltas say the new bytes become XBZRLE records,
// which the hypervisor applies to its own RAM. Codecs that need the page as it was (`needsBaseline`) oblige the
// destination to keep what the source's page cache keeps, slot by slot.

/** Numbers on the wire. 0 is invalid; a number never changes its meaning. */
export const DELTA_XBZRLE = 1;
export const DELTA_WORD_MASK = 2;
export const DELTA_XBRLE = 3;
export const DELTA_ZSTD_DICTIONARY = 4;

export type DeltaCodecId =
  | typeof DELTA_XBZRLE
  | typeof DELTA_WORD_MASK
  | typeof DELTA_XBRLE
  | typeof DELTA_ZSTD_DICTIONARY;

/** encode(): the page has not changed. */
export const DELTA_UNCHANGED = 0;
/** encode(): the delta would not be worth it; the page is to be sent whole. */
export const DELTA_OVERFLOW = -1;
/** decode(): what the peer sent is no delta. */
export const DELTA_INVALID = -1;

export interface DeltaCodec {
  readonly id: DeltaCodecId;
  readonly needsBaseline: boolean;
  /** Of the last decode(): what it used of the two streams. */
  readonly controlBytesUsed: number;
  readonly dataBytesUsed: number;
  /**
   * Writes what turns the old page into the new one. The caller owns `controlBytesMax` and `dataBytesMax` bytes
   * from the two addresses on; those behind the result are overwritten with anything.
   * @returns control bytes + data bytes * 65536; DELTA_UNCHANGED; DELTA_OVERFLOW
   */
  encode(oldAddress: number, newAddress: number, controlAddress: number, dataAddress: number): number;
  /**
   * Takes the first delta of the two ranges, which may be hostile. Without `needsBaseline` it is written to `out`
   * as an XBZRLE delta (`pageBytes` owned there); with it, `out` is the page as it was and is changed in place.
   * @returns length of the delta, or of the page; DELTA_INVALID
   */
  decode(
    controlAddress: number,
    controlBytes: number,
    dataAddress: number,
    dataBytes: number,
    out: number,
  ): number;
}

/** Room that encode() may write over. */
export const controlBytesMax = (pageBytes: number): number => 64 + (9 * pageBytes) / 512;
export const dataBytesMax = (pageBytes: number): number => pageBytes + 64;
