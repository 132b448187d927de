// What a StreamReader says, as a list that two readings can be compared by: verbatim pieces that follow each
// other are one, page contents are copies. The only freedom a reader has is how it cuts verbatim bytes.

import type { StreamHandler } from "../../src/stream/reader.ts";

export type Call =
  | { call: "verbatim"; bytes: Buffer }
  | { call: "ramBlocks"; blocks: { idstr: string; lengthBytes: number }[]; pageBytes: number }
  | { call: "ramSection"; type: number; id: number }
  | { call: "ramSectionEnd"; id: number }
  | { call: "zeroPage"; block: number; page: number; fill: number }
  | { call: "page"; block: number; page: number; bytes: Buffer }
  | { call: "xbzrlePage"; block: number; page: number; bytes: Buffer }
  | { call: "command"; command: number }
  | { call: "stopped" }
  | { call: "discarded"; block: number; page: number; pages: number }
  | { call: "package" }
  | { call: "packageEnd" }
  | { call: "deviceState"; offsetBytes: number }
  | { call: "opaque"; offsetBytes: number; insideRam: boolean };

export class Trace {
  readonly #calls: Call[] = [];
  #verbatim: Uint8Array[] = [];

  get calls(): Call[] {
    this.#close();
    return this.#calls;
  }

  verbatim(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#verbatim.push(Buffer.from(bytes));
  }

  add(call: Exclude<Call, { call: "verbatim" }>): void {
    this.#close();
    this.#calls.push(call);
  }

  #close(): void {
    if (this.#verbatim.length === 0) return;
    this.#calls.push({ call: "verbatim", bytes: Buffer.concat(this.#verbatim) });
    this.#verbatim = [];
  }
}

/** A handler that writes everything down; `pageBytes` is learned from the stream. */
export function tracingHandler(trace: Trace): StreamHandler & { reason: string } {
  let pageBytes = 0;
  return {
    /** Why the stream went opaque: wording is no part of the trace. */
    reason: "",
    verbatim: (bytes, start, end) => trace.verbatim(bytes.subarray(start, end)),
    ramBlocks(blocks, size) {
      pageBytes = size;
      trace.add({ call: "ramBlocks", blocks: blocks.map((block) => ({ ...block })), pageBytes });
    },
    ramSection: (type, id) => trace.add({ call: "ramSection", type, id }),
    ramSectionEnd: (id) => trace.add({ call: "ramSectionEnd", id }),
    zeroPage: (block, page, fill) => trace.add({ call: "zeroPage", block, page, fill }),
    page(block, page, bytes, offset) {
      trace.add({
        call: "page",
        block,
        page,
        bytes: Buffer.from(bytes.subarray(offset, offset + pageBytes)),
      });
    },
    xbzrlePage(block, page, bytes, offset, lengthBytes) {
      const delta = Buffer.from(bytes.subarray(offset, offset + lengthBytes));
      trace.add({ call: "xbzrlePage", block, page, bytes: delta });
    },
    command: (command) => trace.add({ call: "command", command }),
    discarded: (block, page, pages) => trace.add({ call: "discarded", block, page, pages }),
    package: () => trace.add({ call: "package" }),
    packageEnd: () => trace.add({ call: "packageEnd" }),
    stopped: () => trace.add({ call: "stopped" }),
    deviceState: (offsetBytes) => trace.add({ call: "deviceState", offsetBytes }),
    opaque(reason, offsetBytes, insideRam) {
      this.reason = reason;
      trace.add({ call: "opaque", offsetBytes, insideRam });
    },
  };
}

/** Bytes of every call, in hex: what a failing comparison prints. */
export function describeCalls(calls: readonly Call[]): string[] {
  return calls.map((call) =>
    JSON.stringify(call, (_key, value: unknown) =>
      typeof value === "object" && value !== null && "type" in value && value.type === "Buffer"
        ? Buffer.from((value as unknown as { data: number[] }).data)
            .toString("hex")
            .slice(0, 80)
        : value,
    ),
  );
}

/** Deep equality that is quick for pages. Returns the index of the first difference, or -1. */
export function firstDifference(a: readonly Call[], b: readonly Call[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const [left, right] = [a[i], b[i]];
    if (left === undefined || right === undefined) return i;
    if ("bytes" in left && "bytes" in right && Buffer.compare(left.bytes, right.bytes) !== 0) return i;
    const plain = (call: Call) => JSON.stringify({ ...call, bytes: undefined });
    if (plain(left) !== plain(right)) return i;
  }
  return -1;
}
