// The ways to move a guest, as far as a forecast needs them: what a page costs on the wire and in CPU, the first time and
// again, and who decides when the guest is stopped. QEMU's own behave as QEMU 7.2 to 10.0 do (migration/ram.c,
// migration/migration.c: read for facts).

import type { DeltaSize, GuestModel } from "./guest-model.ts";

/** Encoders work beside the thread that finds and writes pages. */
const TUNNEL_CORES = 2;
/** On the wire beside the page: the record's header. */
const HEADER_BYTES = 9;
/** A zero page in QEMU's stream; in the tunnel a bit of a bitmap. */
const ZERO_RECORD_BYTES = 10;
const ZERO_TUNNEL_BYTES = 0.2;
/** A page that is dirty but unchanged: nothing in a delta method, a bit in the tunnel. */
const UNCHANGED_TUNNEL_BYTES = 0.2;
/** What QEMU takes to find, copy and write a page: some 1.3 GB/s, as between two QEMUs on one host. */
const QEMU_CPU_MS_PER_PAGE = 0.003;

export const METHOD_NAMES = [
  "vanilla",
  "xbzrle-full",
  "multifd-zstd",
  "auto-converge",
  "postcopy",
  "direct",
  "tunnel",
] as const;
export type MethodName = (typeof METHOD_NAMES)[number];

/** Of one page, all of the source's work together. */
export interface PageCost {
  readonly wireBytes: number;
  /** On one core. */
  readonly cpuMs: number;
}

export interface MethodModel {
  readonly name: MethodName;
  readonly title: string;
  /** `judge`: Deltavee's own decision. `stock`: QEMU's, which counts whole pages. */
  readonly switchover: "judge" | "stock";
  readonly throttles: boolean;
  /** QEMU's xbzrle begins after the first pass: a page must have been sent twice before a delta of it can be. */
  readonly cachesFirstPass: boolean;
  /** After the first pass the guest goes on at the destination. */
  readonly postcopy: boolean;
  /** Threads that share the work on pages. */
  readonly cores: number;
  zero(): PageCost;
  /** Any other page, for the first time. */
  first(guest: GuestModel, bytesPerSecond: number): PageCost;
  /** Again, when its content has changed. `cached`: share of such pages whose version before is still in the cache. */
  changed(guest: GuestModel, size: DeltaSize, cached: number): PageCost;
  /** Again, written with what was there. */
  rewritten(guest: GuestModel, cached: number): PageCost;
}

const whole = (guest: GuestModel): PageCost => ({
  wireBytes: guest.pageBytes + HEADER_BYTES,
  cpuMs: QEMU_CPU_MS_PER_PAGE,
});
const mix = (share: number, a: PageCost, b: PageCost): PageCost => ({
  wireBytes: share * a.wireBytes + (1 - share) * b.wireBytes,
  cpuMs: share * a.cpuMs + (1 - share) * b.cpuMs,
});

const plain = {
  switchover: "stock",
  throttles: false,
  cachesFirstPass: true,
  postcopy: false,
  cores: 1,
  zero: () => ({ wireBytes: ZERO_RECORD_BYTES, cpuMs: QEMU_CPU_MS_PER_PAGE / 3 }),
  first: (guest: GuestModel) => whole(guest),
  changed: (guest: GuestModel) => whole(guest),
  rewritten: (guest: GuestModel) => whole(guest),
} as const;

/** XBZRLE records, QEMU's or ours. */
const xbzrle = {
  changed: (guest: GuestModel, size: DeltaSize, cached: number) =>
    mix(
      cached,
      {
        wireBytes: size.xbzrleBytes + HEADER_BYTES + 3,
        cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.delta,
      },
      whole(guest),
    ),
  rewritten: (guest: GuestModel, cached: number) =>
    mix(cached, { wireBytes: 0, cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.delta }, whole(guest)),
};

/** The tunnel codes as hard as the link leaves time for: whichever lets most pages cross (engine/transport/entropy-choice.ts). */
function tunnelFirst({ cpuMsPerPage, codedShare, pageBytes }: GuestModel, bytesPerSecond: number): PageCost {
  const choices = [
    { wireBytes: pageBytes, cpuMs: QEMU_CPU_MS_PER_PAGE },
    { wireBytes: codedShare.fast * pageBytes, cpuMs: QEMU_CPU_MS_PER_PAGE + cpuMsPerPage.fast },
    { wireBytes: codedShare.strong * pageBytes, cpuMs: QEMU_CPU_MS_PER_PAGE + cpuMsPerPage.strong },
  ];
  const msPerPage = ({ wireBytes, cpuMs }: PageCost) =>
    Math.max((wireBytes * 1000) / bytesPerSecond, cpuMs / TUNNEL_CORES);
  return choices.reduce((best, each) => (msPerPage(each) <= msPerPage(best) ? each : best));
}

export const METHODS: Readonly<Record<MethodName, MethodModel>> = {
  vanilla: { ...plain, name: "vanilla", title: "QEMU: pre-copy" },
  "xbzrle-full": {
    ...plain,
    ...xbzrle,
    name: "xbzrle-full",
    title: "QEMU: xbzrle, full cache",
    cachesFirstPass: false,
  },
  "multifd-zstd": {
    ...plain,
    name: "multifd-zstd",
    title: "QEMU: multifd + zstd",
    cores: 2,
    first: (guest) => ({
      wireBytes: guest.codedShare.fast * guest.pageBytes,
      cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.fast,
    }),
    changed: (guest, size) => ({
      wireBytes: size.wholeCodedBytes,
      cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.fast,
    }),
    rewritten: (guest) => ({
      wireBytes: guest.codedShare.fast * guest.pageBytes,
      cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.fast,
    }),
  },
  "auto-converge": { ...plain, name: "auto-converge", title: "QEMU: auto-converge", throttles: true },
  postcopy: { ...plain, name: "postcopy", title: "QEMU: post-copy after the first pass", postcopy: true },
  direct: { ...plain, ...xbzrle, name: "direct", title: "Deltavee: direct", switchover: "judge" },
  tunnel: {
    ...plain,
    name: "tunnel",
    title: "Deltavee: tunnel",
    switchover: "judge",
    cores: TUNNEL_CORES,
    zero: () => ({ wireBytes: ZERO_TUNNEL_BYTES, cpuMs: QEMU_CPU_MS_PER_PAGE / 3 }),
    first: (guest, bytesPerSecond) => tunnelFirst(guest, bytesPerSecond),
    changed: (guest, size, cached) =>
      mix(
        cached,
        { wireBytes: size.tunnelBytes, cpuMs: QEMU_CPU_MS_PER_PAGE + 2 * guest.cpuMsPerPage.delta },
        { wireBytes: size.wholeCodedBytes, cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.fast },
      ),
    rewritten: (guest, cached) =>
      mix(
        cached,
        { wireBytes: UNCHANGED_TUNNEL_BYTES, cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.delta },
        {
          wireBytes: guest.codedShare.fast * guest.pageBytes,
          cpuMs: QEMU_CPU_MS_PER_PAGE + guest.cpuMsPerPage.fast,
        },
      ),
  },
};
