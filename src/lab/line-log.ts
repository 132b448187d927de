// Lines of text as a process writes them, each with the time at which it was received, to be waited for and looked
// at afterwards. Knows nothing of what they say.

/** A heartbeat each 10 ms for almost three hours. */
const LINES_MAX = 1_000_000;
const LINE_CHARACTERS_MAX = 1 << 20;

export interface ReceivedLine {
  text: string;
  /** When the line's end was received: `performance.now()` of this process. */
  receivedMs: number;
}

export interface WaitOptions {
  timeoutMs: number;
  /** Index of the first line that counts; the default 0 counts those that are there already. */
  from?: number;
}

interface Waiter {
  matches: (line: ReceivedLine) => boolean;
  resolve: (line: ReceivedLine) => void;
  reject: (error: Error) => void;
}

export class LineLog {
  readonly lines: ReceivedLine[] = [];
  /** What came after the last line's end. */
  unfinished = "";
  readonly #decoder = new TextDecoder();
  readonly #waiters = new Set<Waiter>();
  #ended: Error | undefined;

  /** What comes after the end, as of a process that has printed too much, is not kept. */
  push(chunk: Uint8Array): void {
    if (this.#ended !== undefined) return;
    const receivedMs = performance.now();
    const texts = (this.unfinished + this.#decoder.decode(chunk, { stream: true })).split("\n");
    this.unfinished = texts.pop() ?? "";
    if (this.unfinished.length > LINE_CHARACTERS_MAX || this.lines.length > LINES_MAX) {
      this.end(new Error(`More output than anybody can want (${this.lines.length} lines)`));
      return;
    }
    for (const text of texts) {
      const line = { text: text.replace(/\r$/, ""), receivedMs };
      this.lines.push(line);
      for (const waiter of [...this.#waiters]) if (waiter.matches(line)) waiter.resolve(line);
    }
  }

  /** No more lines will come: whoever waits, now or later, gets `reason` as an error. */
  end(reason: Error): void {
    this.#ended ??= reason;
    for (const waiter of [...this.#waiters]) waiter.reject(this.#ended);
  }

  /** The first line that `matches`; `what` names it for the error. Rejects after `timeoutMs` and at the end. */
  waitFor(
    matches: (line: ReceivedLine) => boolean,
    what: string,
    { timeoutMs, from = 0 }: WaitOptions,
  ): Promise<ReceivedLine> {
    const there = this.lines.slice(from).find(matches);
    if (there !== undefined) return Promise.resolve(there);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const settle = (action: () => void) => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        action();
      };
      const waiter: Waiter = {
        matches,
        resolve: (line) => settle(() => resolve(line)),
        reject: (error) => settle(() => reject(error)),
      };
      const timer = setTimeout(
        () => waiter.reject(new Error(`No ${what} within ${timeoutMs} ms. Last lines:\n${this.tail()}`)),
        timeoutMs,
      );
      this.#waiters.add(waiter);
    });
  }

  /** The last few lines, for messages. */
  tail(): string {
    const lines = this.lines.slice(-10).map((line) => line.text);
    return [...lines, this.unfinished].join("\n").trimEnd();
  }
}
