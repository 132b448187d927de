// The way between the two hosts: connections that are made over it, and what happens to them and to it. A connection
// that breaks can be made anew, unless the link is away.

import type { Channel } from "../../src/engine/ports.ts";
import { PacedChannel } from "../../src/link/paced-channel.ts";
import { frameTap, type SeenFrame } from "./frame-tap.ts";
import type { Plan, PlannedFault } from "./plan.ts";
import type { Random } from "./random.ts";
import type { SimClock } from "./sim-clock.ts";
import { connection, type SimEnd } from "./sim-connection.ts";
import type { SimProcess } from "./sim-process.ts";

interface Hosts {
  sourceProcess: SimProcess;
  destinationProcess: SimProcess;
  sourceFrame: (frame: SeenFrame) => void;
  destinationFrame: (frame: SeenFrame) => void;
}

/** After this an attempt to connect is given up. */
const CONNECT_TIMEOUT_MS = 3000;

export class SimNetwork {
  readonly #clock: SimClock;
  readonly #random: Random;
  readonly #plan: Plan;
  readonly #hosts: Hosts;
  readonly #connections: [SimEnd, SimEnd][] = [];
  /** No connection can be made before. */
  #awayUntilMs = 0;
  /** Nothing gets through to the destination, or to the source, before. */
  readonly #stalledUntilMs: [number, number] = [0, 0];
  /** Connections that are still to be lost, as soon as they are made. */
  #repeated: PlannedFault | undefined;
  #repeatsLeft = 0;

  constructor(clock: SimClock, random: Random, plan: Plan, hosts: Hosts) {
    this.#clock = clock;
    this.#random = random;
    this.#plan = plan;
    this.#hosts = hosts;
  }

  get ends(): readonly SimEnd[] {
    return this.#connections.flat();
  }

  /** A connection: as the source engine gets it, and the end at the destination. */
  open(): [Channel, SimEnd] {
    const { mode, toDestination, toSource, otherVersion, pacedBytesPerSecond } = this.#plan;
    const { sourceProcess, destinationProcess, sourceFrame, destinationFrame } = this.#hosts;
    const ends = connection(this.#clock, this.#random.fork(), [toDestination, toSource]);
    this.#connections.push(ends);
    const [sourceEnd, destinationEnd] = ends;
    if (otherVersion) sourceEnd.alter = offerOtherVersions();
    ends.forEach((end, side) => {
      end.stall(this.#stalledUntilMs[side]! - this.#clock.nowMs());
    });
    sourceProcess.owns(sourceEnd);
    const channel: Channel =
      pacedBytesPerSecond === undefined
        ? sourceEnd
        : new PacedChannel(sourceEnd, sourceProcess, pacedBytesPerSecond);
    if (mode === "direct") return [channel, destinationEnd];
    destinationProcess.owns(destinationEnd);
    destinationEnd.onWrite = frameTap(destinationFrame);
    // As the engine writes to it: what waits for its turn in there has been given away already.
    const tap = frameTap(sourceFrame);
    const write = channel.write.bind(channel);
    channel.write = (bytes, written) => {
      tap(bytes);
      return write(bytes, written);
    };
    return [channel, destinationEnd];
  }

  /** Another one, in the time that it takes. */
  async connect(): Promise<[Channel, SimEnd]> {
    const roundTripMs = 2 * this.#plan.toDestination.delayMs;
    if (this.#clock.nowMs() < this.#awayUntilMs) {
      await this.#clock.sleep(CONNECT_TIMEOUT_MS);
      throw new Error("no answer");
    }
    await this.#clock.sleep(roundTripMs);
    if (!this.#hosts.destinationProcess.alive) throw new Error("connection refused");
    const opened = this.open();
    if (this.#repeatsLeft > 0) {
      this.#repeatsLeft--;
      const repeated = this.#repeated!;
      this.#clock.after(repeated.repeatsAfterMs, () => this.#cutLast(repeated));
    }
    return opened;
  }

  /** The connection is gone, and so are perhaps some of those that follow. */
  cut(fault: PlannedFault): void {
    this.#repeated = fault;
    this.#repeatsLeft = fault.repeats;
    this.#cutLast(fault);
  }

  #cutLast({ sourceNoticesMs, destinationNoticesMs }: PlannedFault): void {
    const [sourceEnd, destinationEnd] = this.#connections.at(-1)!;
    sourceEnd.cut(sourceNoticesMs);
    destinationEnd.cut(destinationNoticesMs);
  }

  goAway(ms: number): void {
    this.#awayUntilMs = Math.max(this.#awayUntilMs, this.#clock.nowMs() + ms);
  }

  /** Side 0: from the source, 1: from the destination. */
  stall(side: 0 | 1, ms: number): void {
    this.#stalledUntilMs[side] = Math.max(this.#stalledUntilMs[side], this.#clock.nowMs() + ms);
    for (const ends of this.#connections) ends[side].stall(ms);
  }

  slowDown(times: number, ms: number): void {
    const slowed = this.ends;
    for (const end of slowed) end.slowDown(times);
    this.#clock.after(ms, () => {
      for (const end of slowed) end.slowDown(1);
    });
  }
}

/** HELLO offers versions that nobody speaks. */
function offerOtherVersions(): (bytes: Buffer) => void {
  let offsetBytes = 0;
  return (bytes) => {
    for (let at = 24; at < 28; at++) {
      const index = at - offsetBytes;
      if (index >= 0 && index < bytes.length) bytes[index] = at % 2 === 0 ? 0 : 77;
    }
    offsetBytes += bytes.length;
  };
}
