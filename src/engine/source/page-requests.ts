// What a destination may ask for in post-copy: pages of RAMBlocks that the stream has listed. Whatever else it says is
// refused here, where a person is told what was wrong, and not by a hypervisor that drops its return path over it.

import { ProtocolError } from "../../base/errors.ts";
import type { StreamBlock } from "../../stream/reader.ts";
import { type PageRequest, pageRequest, type ReturnPathMessage } from "../../stream/return-path.ts";

export class PageRequests {
  readonly #lengthBytes: ReadonlyMap<string, number>;
  /** Of the request before: a request without a name means the same one. */
  #idstr: string | undefined;

  constructor(blocks: readonly StreamBlock[]) {
    this.#lengthBytes = new Map(blocks.map(({ idstr, lengthBytes }) => [idstr, lengthBytes]));
  }

  /**
   * Bytes that the message asks for; 0: it is no request. `isDue`: something may be missing at the destination.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME for a request that no destination has a reason for
   */
  take(message: ReturnPathMessage, isDue: boolean): number {
    const request = pageRequest(message);
    if (request === undefined) return 0;
    const problem = isDue ? this.#problem(request) : "although it has been given no device state";
    if (problem === undefined) return request.lengthBytes;
    const { offsetBytes, lengthBytes } = request;
    const text = `Destination asked for ${lengthBytes} bytes at ${offsetBytes} of a RAMBlock, ${problem}`;
    throw new ProtocolError("PROTOCOL_INVALID_FRAME", text);
  }

  #problem({ idstr = this.#idstr, offsetBytes, lengthBytes }: PageRequest): string | undefined {
    if (idstr === undefined) return "and has named none";
    const blockBytes = this.#lengthBytes.get(idstr);
    if (blockBytes === undefined) return `and there is none of the name ${JSON.stringify(idstr)}`;
    this.#idstr = idstr;
    if (lengthBytes > 0 && offsetBytes + lengthBytes <= blockBytes) return undefined;
    return `and ${idstr} has ${blockBytes} bytes`;
  }
}
