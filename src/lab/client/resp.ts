// The Redis serialisation protocol, version 2: commands out, replies in. Knows no socket and no Redis command.
// Format: https://redis.io/docs/latest/develop/reference/protocol-spec/ (inline commands and version 3 are left out).

/** Something that a server may answer instead of what was asked for: "ERR unknown command", "EXECABORT ...". */
export class RespErrorReply {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

/** Strings hold a byte per character (latin1), so that any bytes survive. */
export type RespReply = string | number | null | RespErrorReply | readonly RespReply[];

/** The peer is no Redis, or has lost its place: nothing that follows can be understood. */
export class RespFormatError extends Error {
  override readonly name = "RespFormatError";
}

const LINE_BYTES_MAX = 64 * 1024;
/** Of one reply with all that is in it: nesting must not multiply what it may hold. */
const REPLY_BYTES_MAX = 64 * 1024 ** 2;
const ELEMENTS_MAX = 1024 ** 2;
const DEPTH_MAX = 8;

const CRLF_BYTES = 2;
const LF = 0x0a;

/** One command as an array of bulk strings. Strings are a byte per character, as in replies. */
export function encodeCommand(words: readonly (string | number)[]): Buffer {
  const parts = [`*${words.length}\r\n`];
  for (const word of words) {
    const text = String(word);
    parts.push(`$${text.length}\r\n${text}\r\n`);
  }
  return Buffer.from(parts.join(""), "latin1");
}

/** Takes bytes cut anywhere and calls `onReply` for each whole reply. Holds one unfinished reply at most. */
export class RespParser {
  readonly #onReply: (reply: RespReply) => void;
  readonly #unfinished: { readonly elements: RespReply[]; readonly length: number }[] = [];
  /** Of the reply that is under way. */
  #elements = 0;
  #replyBytes = 0;
  #line = "";
  /** The bulk string that is being taken: its bytes, and how many of them (with its CRLF) are still to come. */
  #bulk: Buffer[] = [];
  #bulkLeftBytes = 0;

  constructor(onReply: (reply: RespReply) => void) {
    this.#onReply = onReply;
  }

  /** @throws RespFormatError, after which the parser must not be used any more */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = 0;
    while (at < bytes.length) {
      at = this.#bulkLeftBytes > 0 ? this.#takeBulk(bytes, at) : this.#takeLine(bytes, at);
    }
  }

  #takeBulk(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#bulkLeftBytes);
    this.#replyBytes += end - at;
    if (this.#replyBytes > REPLY_BYTES_MAX) throw new RespFormatError("A reply is too long");
    this.#bulk.push(Buffer.from(bytes.subarray(at, end)));
    this.#bulkLeftBytes -= end - at;
    if (this.#bulkLeftBytes === 0) {
      const text = Buffer.concat(this.#bulk).toString("latin1");
      this.#bulk = [];
      if (!text.endsWith("\r\n"))
        throw new RespFormatError("A bulk string does not end where it said it would");
      this.#value(text.slice(0, -CRLF_BYTES));
    }
    return end;
  }

  #takeLine(bytes: Buffer, at: number): number {
    const newline = bytes.indexOf(LF, at);
    const end = newline < 0 ? bytes.length : newline + 1;
    this.#line += bytes.toString("latin1", at, end);
    if (this.#line.length > LINE_BYTES_MAX) throw new RespFormatError("A line of a reply does not end");
    if (newline >= 0) {
      const line = this.#line;
      this.#line = "";
      const value = this.#header(line);
      if (value !== undefined) this.#value(value);
    }
    return end;
  }

  /** The value that the line is, or undefined when the line only says what is to come. */
  #header(line: string): RespReply | undefined {
    if (!line.endsWith("\r\n")) throw new RespFormatError("A line of a reply ends without a carriage return");
    const rest = line.slice(1, -CRLF_BYTES);
    switch (line[0]) {
      case "+":
        return rest;
      case "-":
        return new RespErrorReply(rest);
      case ":":
        return integer(rest, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
      case "$": {
        const lengthBytes = integer(rest, -1, REPLY_BYTES_MAX);
        if (lengthBytes < 0) return null;
        this.#bulkLeftBytes = lengthBytes + CRLF_BYTES;
        return undefined;
      }
      case "*": {
        const length = integer(rest, -1, ELEMENTS_MAX);
        if (length < 0) return null;
        if (length === 0) return [];
        if (this.#unfinished.length === DEPTH_MAX) throw new RespFormatError("Arrays nest too deep");
        this.#unfinished.push({ elements: [], length });
        return undefined;
      }
      default:
        throw new RespFormatError(`A reply begins with ${JSON.stringify(line[0])}, which is no type`);
    }
  }

  #value(value: RespReply): void {
    let whole = value;
    for (;;) {
      const array = this.#unfinished.at(-1);
      if (array === undefined) break;
      if (++this.#elements > ELEMENTS_MAX) throw new RespFormatError("A reply has too many elements");
      array.elements.push(whole);
      if (array.elements.length < array.length) return;
      this.#unfinished.pop();
      whole = array.elements;
    }
    this.#elements = 0;
    this.#replyBytes = 0;
    this.#onReply(whole);
  }
}

function integer(text: string, min: number, max: number): number {
  const value = /^[+-]?\d{1,19}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max))
    throw new RespFormatError(`${JSON.stringify(text)} is no possible number`);
  return value;
}
