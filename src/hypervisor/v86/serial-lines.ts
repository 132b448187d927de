// Joins the bytes of a serial port to lines. The line that is not yet finished moves with the VM, so that one
// which the guest began on the source ends on the destination. Knows nothing of v86.

/** A guest that never ends its line gets it ended here. */
export const LINE_CHARACTERS_MAX = 4096;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

export class SerialLines {
  /** What the guest has written since the last line ended. */
  unfinished = "";
  readonly #onLine: (line: string) => void;

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  byte(byte: number): void {
    if (byte === CARRIAGE_RETURN) return;
    if (byte !== LINE_FEED) this.unfinished += String.fromCharCode(byte);
    if (byte !== LINE_FEED && this.unfinished.length < LINE_CHARACTERS_MAX) return;
    const line = this.unfinished;
    this.unfinished = "";
    this.#onLine(line);
  }
}
