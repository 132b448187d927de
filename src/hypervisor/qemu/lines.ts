// Splits bytes that arrive in any pieces into lines of UTF-8 text, with a limit on the length of a line.
// Knows nothing of what the lines say.

const NEWLINE = 0x0a;

/** Thrown by `push`; whoever reads the source turns it into an error of their own. */
export class LineTooLongError extends Error {
  constructor(lineBytesMax: number) {
    super(`a line is longer than ${lineBytesMax} bytes`);
    this.name = new.target.name;
  }
}

export class LineSplitter {
  readonly #lineBytesMax: number;
  /** Pieces of the line that has not ended yet: joined once, when it does, so that tiny pieces stay cheap. */
  #pieces: Buffer[] = [];
  #pendingBytes = 0;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /**
   * The lines that `chunk` completes, without their ends ("\n" or "\r\n"). `chunk` is not copied: it must not
   * change afterwards. @throws LineTooLongError, after which this splitter is of no more use.
   */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#keep(chunk.subarray(start, end));
      const line = Buffer.concat(this.#pieces, this.#pendingBytes).toString("utf8");
      lines.push(line.endsWith("\r") ? line.slice(0, -1) : line);
      this.#pieces = [];
      this.#pendingBytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    return lines;
  }

  #keep(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#pendingBytes += piece.length;
    if (this.#pendingBytes > this.#lineBytesMax) throw new LineTooLongError(this.#lineBytesMax);
  }
}
