// Constants of QEMU's migration stream (main channel, 7.2 to 10.x). All numbers on the wire are big-endian.
// FORMAT.md describes the grammar. Facts from QEMU's migration/savevm.c, migration/ram.c and
// migration/migration.c, and from captured streams.

export const STREAM_MAGIC = 0x5145564d; // "QEVM"
export const STREAM_VERSION = 3;

/** First byte of every element at top level. */
export const SectionType = {
  EOF: 0x00,
  START: 0x01,
  PART: 0x02,
  END: 0x03,
  FULL: 0x04,
  SUBSECTION: 0x05,
  VMDESCRIPTION: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  FOOTER: 0x7e,
} as const;

/** Commands inside the stream (be16 number, be16 length, payload). */
export const Command = {
  OPEN_RETURN_PATH: 1,
  PING: 2,
  POSTCOPY_ADVISE: 3,
  POSTCOPY_RAM_DISCARD: 6,
  PACKAGED: 7,
  POSTCOPY_RESUME: 9,
  RECV_BITMAP: 10,
  SWITCHOVER_START: 11,
} as const;

/** Value of the PING that is the last thing in a package before the command to run the guest. */
export const PACKAGE_PING_VALUE = 3;
/** Version of POSTCOPY_RAM_DISCARD's payload. */
export const DISCARD_VERSION = 0;

/** Low bits of the be64 that begins every record of the ram section; the rest is the page's offset. */
export const RamFlag = {
  ZERO: 0x02,
  MEM_SIZE: 0x04,
  PAGE: 0x08,
  EOS: 0x10,
  CONTINUE: 0x20,
  XBZRLE: 0x40,
} as const;

/** First byte of an XBZRLE record's payload. */
export const XBZRLE_ENCODING = 0x01;

export const RAM_SECTION_NAME = "ram";
/** Version of the ram section since QEMU 2.0; MEM_SIZE would be laid out differently in another. */
export const RAM_SECTION_VERSION = 4;

/** Messages on the return path (be16 type, be16 length, payload), destination to source. */
export const ReturnPathType = {
  SHUT: 1,
  PONG: 2,
  REQ_PAGES_ID: 3,
  REQ_PAGES: 4,
  RECV_BITMAP: 5,
  RESUME_ACK: 6,
  SWITCHOVER_ACK: 7,
} as const;

/** Page size unless the configuration section says otherwise (x86, s390x, riscv, ppc). */
export const DEFAULT_PAGE_BYTES = 4096;

/** Page sizes whose offsets leave room for the flags, and whose deltas XBZRLE can describe. */
export const PAGE_BITS_MIN = 10;
export const PAGE_BITS_MAX = 14;
export const PAGE_BYTES_MAX = 1 << PAGE_BITS_MAX;

/** Limits on what a stream may make us hold. */
export const RAM_BLOCKS_MAX = 4096;
export const MACHINE_NAME_BYTES_MAX = 4096;
export const CAPABILITIES_MAX = 256;
