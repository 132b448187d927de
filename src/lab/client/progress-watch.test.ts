import { createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { FakeLab } from "../../../test/support/fake-lab.ts";
import { parseProgressLine, watchProgress } from "./progress-watch.ts";

const BEFORE_MS = 50;

/** A program in the guest: what it writes is the test's. */
class FakeProgram {
  readonly #server = createServer((socket) => {
    this.socket = socket;
    socket.setEncoding("utf8").on("data", (text: string) => {
      if (text.includes("v")) this.onVerify();
    });
    socket.on("error", () => {});
  });
  socket: Socket | undefined;
  onVerify = (): void => {};
  #timer: NodeJS.Timeout | undefined;
  #said = 0;

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Says every 5 ms what `line` gives. */
  say(line: () => string): void {
    this.#timer = setInterval(() => {
      if (this.socket?.write(line())) this.#said++;
    }, 5);
  }

  /** Resolves when it has said so many more. */
  async hasSaid(count: number): Promise<void> {
    for (const enough = this.#said + count; this.#said < enough; ) await sleep(1);
  }

  silence(): void {
    clearInterval(this.#timer);
  }

  close(): void {
    this.silence();
    this.socket?.destroy();
    this.#server.close();
  }
}

const program = { current: new FakeProgram() };
afterEach(() => {
  program.current.close();
  program.current = new FakeProgram();
});

async function optionsFor(more: object = {}): Promise<object> {
  const port = await program.current.listen();
  const throughput = { field: "pages", kind: "counter", name: "pages written", unit: "pages/s" };
  return { address: "127.0.0.1", port, throughput, beforeMs: BEFORE_MS, stepMs: 1, ...more };
}

describe("a line of progress", () => {
  it("is a word and numbers with names", () => {
    const parsed = parseProgressLine("progress pages=17 value=14.250");
    expect(parsed?.kind).toBe("progress");
    expect([...(parsed?.fields ?? [])]).toEqual([
      ["pages", 17],
      ["value", 14.25],
    ]);
  });

  it("is nothing else", () => {
    for (const line of [
      "",
      "progress",
      "progress pages",
      "progress pages=",
      "progress pages=1 2",
      " a=1",
      "p pages=-1",
    ]) {
      expect(parseProgressLine(line), line).toBeUndefined();
    }
  });
});

describe("the watch of a program in the guest", () => {
  it("tells the throughput of each phase, the longest silence after the migration began, and the missed share", async () => {
    const lab = new FakeLab(await optionsFor({ missedField: "missedPages" }));
    let pages = 0;
    const line = () => {
      pages += 30;
      return `progress pages=${pages} missedPages=${pages / 3}\n`;
    };
    program.current.say(line);
    const view = watchProgress(lab);
    await lab.isReady;
    const readyMs = performance.now();
    await program.current.hasSaid(10);
    lab.begin();
    program.current.silence();
    // However slow this machine is: far less is said during it than before.
    await sleep(Math.max(120, 4 * (BEFORE_MS + performance.now() - readyMs)));
    program.current.say(line);
    await program.current.hasSaid(5);
    lab.end();
    await program.current.hasSaid(5);
    lab.finish();
    const { metrics, failures, series } = await view;
    expect(failures).toEqual([]);
    expect(metrics.throughputBefore).toBeGreaterThan(0);
    expect(metrics.throughputDuring).toBeLessThan(metrics.throughputBefore!);
    expect(metrics.throughputAfter).toBeGreaterThan(0);
    expect(metrics.serviceDownMs).toBeGreaterThan(100);
    expect(metrics.missedShare).toBeCloseTo(0.25);
    expect(metrics).not.toHaveProperty("damagedPages");
    expect(series[0]).toMatchObject({ name: "pages written", unit: "pages/s" });
    expect(series[0]!.points.length).toBeGreaterThan(2);
  });

  it("asks what is damaged when all is over, and calls that a failure", async () => {
    const lab = new FakeLab(await optionsFor({ verify: true }));
    program.current.say(() => "progress pages=1\n");
    program.current.onVerify = () => program.current.socket?.write("verified pages=64 damagedPages=3\n");
    const view = watchProgress(lab);
    await lab.isReady;
    lab.finish();
    const { metrics, failures } = await view;
    expect(metrics.damagedPages).toBe(3);
    expect(failures).toEqual(["3 pages damaged"]);
  });

  it("takes lines that come byte by byte", async () => {
    const lab = new FakeLab(
      await optionsFor({
        verify: true,
        throughput: { field: "value", kind: "value", name: "speed", unit: "MB/s" },
      }),
    );
    const text = "progress runs=1 value=12.5\n";
    let at = 0;
    program.current.say(() => text[at++ % text.length]!);
    program.current.onVerify = () => {
      program.current.silence();
      program.current.socket?.write("\nverified damagedPages=0\n");
    };
    const view = watchProgress(lab);
    await lab.isReady;
    await program.current.hasSaid(2 * text.length);
    lab.begin();
    lab.finish();
    const { metrics, failures } = await view;
    expect(metrics.throughputBefore).toBe(12.5);
    expect(metrics.damagedPages).toBe(0);
    expect(failures).toEqual([]);
  });

  it("tells of a connection that was lost, and that nothing could be verified then", async () => {
    const lab = new FakeLab(
      await optionsFor({ verify: true, failures: { field: "failedRuns", words: "runs failed" } }),
    );
    program.current.say(() => "progress pages=1 failedRuns=2\n");
    const view = watchProgress(lab);
    await lab.isReady;
    lab.begin();
    program.current.socket?.destroy();
    await sleep(20);
    lab.finish();
    const { failures } = await view;
    expect(failures[0]).toMatch(/^connection to the guest's program lost/);
    expect(failures.slice(1)).toEqual(["2 runs failed", "memory could not be verified"]);
  });

  it("gives up when the program goes before the guest may be moved", async () => {
    const lab = new FakeLab(await optionsFor());
    const view = watchProgress(lab);
    setTimeout(() => program.current.socket?.destroy(), 100);
    await expect(view).rejects.toThrow("went away");
  });
});
