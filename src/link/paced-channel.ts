// A channel that sends no faster than a given rate: `--max-bandwidth`. A shared link that nobody shares.

import type { Clock } from "../base/clock.ts";
import type { Channel } from "../engine/ports.ts";
import { FairChannel, FairLink } from "./fair-link.ts";

export class PacedChannel extends FairChannel {
  constructor(inner: Channel, clock: Clock, bytesPerSecond: number) {
    super(new FairLink(clock, bytesPerSecond, 0), clock, inner, 1);
  }
}
