// Migrations between two hypervisors that somebody else manages, as libvirt does: whole ones and failing ones, in both
// modes, on virtual time. The manager lets the guest run at the destination when the source has completed and the
// destination has everything; the source resumes it by itself when its migration fails. Never both, never neither.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitraryPlan, buildGuestStream, type GuestStream } from "../../../test/support/arbitrary-stream.ts";
import { makeParts } from "../../../test/support/engine-parts.ts";
import {
  FakeIncoming,
  FakeOutgoing,
  type IncomingFaults,
  type OutgoingFaults,
  World,
} from "../../../test/support/fake-hypervisors.ts";
import { type MemoryChannel, memoryChannels } from "../../../test/support/memory-channel.ts";
import { postcopyStream } from "../../../test/support/postcopy-stream.ts";
import { VirtualClock } from "../../base/clock.ts";
import { DELTA_WORD_MASK } from "../../codec/delta/delta-codec.ts";
import { ENTROPY_CODEC_IDS } from "../../codec/entropy/entropy-coder.ts";
import type { DestinationOutcome } from "../../engine/destination/options.ts";
import { DestinationEngine } from "../../engine/destination.ts";
import type { Channel } from "../../engine/ports.ts";
import type { SourceOutcome } from "../../engine/source/options.ts";
import { SourceEngine } from "../../engine/source.ts";
import { PageCache } from "../../memory/page-cache.ts";
import { RunRecord } from "../../record/writer.ts";
import { StreamIncoming } from "./incoming.ts";
import { StreamOutgoing } from "./outgoing.ts";

const MODES = ["direct", "tunnel"] as const;
const HANG_MS = 10 * 60_000;

interface Setup {
  mode: (typeof MODES)[number];
  stream: GuestStream;
  /** "ack": both hypervisors have switchover-ack on. "limit": neither has, and the source decides by itself. */
  control?: "ack" | "limit";
  outgoing?: OutgoingFaults;
  incoming?: IncomingFaults;
  /** Done once, at the first step at which `when` holds. */
  disturb?: { when: (scene: Scene) => boolean; action: (scene: Scene) => void };
  bytesPerSecond?: number;
}

class Scene {
  readonly clock = new VirtualClock();
  readonly world = new World();
  readonly record = new RunRecord({ clock: this.clock });
  readonly outgoing: FakeOutgoing;
  readonly incoming: FakeIncoming;
  readonly #setup: Setup;
  /** The engine's end of the link. */
  link!: MemoryChannel;
  source!: SourceEngine;
  sourceOutcome: SourceOutcome | undefined;
  destinationOutcome: DestinationOutcome | undefined;

  constructor(setup: Setup) {
    const { stream, control = "ack", outgoing, incoming } = setup;
    this.#setup = setup;
    const local = { chunkBytes: 65_536, bufferBytes: 1 << 20 };
    this.outgoing = new FakeOutgoing(this.world, this.clock, stream, control, local, outgoing);
    const acksSwitchover = control === "ack";
    this.incoming = new FakeIncoming(this.world, this.clock, local, { acksSwitchover, ...incoming });
  }

  async run(): Promise<this> {
    const { clock, record } = this;
    const { mode, control, disturb, bytesPerSecond = 1e6 } = this.#setup;
    const identity = { kind: "qemu" as const, version: "unknown" };
    const own = { deltavee: "0.1.0", entropyCodecs: [...ENTROPY_CODEC_IDS], hypervisor: identity };
    const [ours, theirs] = memoryChannels(clock, { bufferBytes: 1 << 20, delayMs: 5, bytesPerSecond });
    this.link = ours;
    if (mode === "tunnel") {
      const vm = new StreamIncoming(() => this.incoming.begin(false));
      const record = new RunRecord({ clock });
      const destination = new DestinationEngine({
        ...makeParts(clock),
        ...{ channel: theirs, vm, own, clock, record },
      });
      void destination.run().then((outcome) => {
        this.destinationOutcome = outcome;
      });
    } else splice(theirs, await this.incoming.begin(false));
    const vm = new StreamOutgoing(await this.outgoing.begin(), clock);
    // Its own decision, since nobody can say anything to it.
    if (control === "limit") await this.outgoing.limitSwitchover();
    const { coder, ...home } = makeParts(clock);
    const hello = { ...own, session: "00112233445566778899aabbccddeeff" };
    this.source = new SourceEngine({
      ...{ ...home, vm, channel: ours, clock, record, observer: vm.pages, downtimeMsMax: 60_000 },
      ...(mode === "tunnel" ? { tunnel: { hello, coder, deltaCodec: DELTA_WORD_MASK } } : {}),
      cacheFactory: (pageBytes, memory) => new PageCache({ pageBytes, memory, limitBytes: 1 << 22 }),
      defer: (callback) => void clock.after(0, callback),
    });
    void this.source.run().then((outcome) => {
      this.sourceOutcome = outcome;
    });
    let toDisturb = disturb;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (toDisturb?.when(this)) {
        const { action } = toDisturb;
        toDisturb = undefined;
        action(this);
        continue;
      }
      this.#manage();
      const dueMs = clock.nextDueMs();
      if (dueMs === undefined || dueMs > HANG_MS) return this;
      clock.advance(dueMs - clock.nowMs());
    }
  }

  /** What libvirt does. */
  #manage(): void {
    if (this.outgoing.end?.outcome === "completed" && this.incoming.side?.complete === true)
      this.world.set("destination", true);
  }

  get phases(): string[] {
    return this.record.events.flatMap((event) => (event.type === "phase" ? [event.phase] : []));
  }

  get isOnSource(): boolean {
    return !this.world.violated && this.world.running.has("source") && !this.world.running.has("destination");
  }
}

/** The link's end to a stock hypervisor: all that comes goes on. */
function splice(a: Channel, b: Channel): void {
  const pass = (from: Channel, to: Channel) =>
    from.listen({
      data: (bytes) => void to.write(Uint8Array.from(bytes)),
      drained: () => {},
      ended: () => to.end(),
      failed: () => to.destroy(),
    });
  pass(a, b);
  pass(b, a);
}

const plan = arbitraryPlan().map((plan) => ({ ...plan, returnPath: true }));
const stream = buildGuestStream(fc.sample(plan, { numRuns: 1, seed: 3 })[0]!);

describe.each(MODES)("%s", (mode) => {
  test("the guest is given away by the destination's verdict, and arrives as it was", async () => {
    await fc.assert(
      fc.asyncProperty(plan, fc.constantFrom("ack" as const, "limit" as const), async (plan, control) => {
        const stream = buildGuestStream(plan);
        const scene = await new Scene({ mode, stream, control }).run();
        expect(scene.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
        if (mode === "tunnel")
          expect(scene.destinationOutcome).toMatchObject({
            outcome: "completed",
            vm: "with the destination",
          });
        expect(scene.phases).toEqual(["setup", "iterating", "switchover", "committed", "completed"]);
        expect(scene.world.history).toEqual(["source runs", "source stops", "destination runs"]);
        const { images } = scene.incoming.side!.loader;
        expect(images.every((image, i) => image.equals(stream.images[i]!))).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  test("the destination's SWITCHOVER_ACK is held until the first pass is over and a rate is known", async () => {
    const scene = await new Scene({ mode, stream }).run();
    const decisions = scene.record.events.filter((event) => event.type === "decision");
    expect(decisions.map(({ subject, choice }) => `${subject}: ${choice}`)).toContain("switchover: now");
    const samples = scene.record.events.flatMap((event) => (event.type === "sample" ? [event] : []));
    expect(samples.some(({ iteration = 0 }) => iteration >= 2)).toBe(true);
  });

  test.each([
    ["the source's QEMU closes half way", { outgoing: { failsAt: 0.5 } }, "HYPERVISOR_FAILED"],
    ["the destination cannot load it", { incoming: { failsToLoad: true, saysWhy: true } }, undefined],
    ["the destination goes without a word", { incoming: { failsToLoad: true } }, undefined],
    [
      "the link breaks half way",
      {
        disturb: {
          when: ({ link }: Scene) => link.writtenBytes > 20_000,
          action: ({ link }: Scene): void => link.cut(),
        },
      },
      "LINK_FAILED",
    ],
    [
      "the link breaks while the guest stands still",
      {
        disturb: { when: ({ outgoing }: Scene) => outgoing.stopped, action: ({ link }: Scene) => link.cut() },
      },
      "LINK_FAILED",
    ],
    [
      "the operator gives up half way",
      {
        disturb: {
          when: ({ link }: Scene) => link.writtenBytes > 20_000,
          action: ({ source }: Scene): void => void source.cancel(),
        },
      },
      "CANCELLED",
    ],
  ] as const)("%s: the guest goes on at the source", async (_what, faults, code) => {
    const scene = await new Scene({ mode, stream, ...faults }).run();
    expect(scene.sourceOutcome).toMatchObject({ vm: "running on source" });
    expect(scene.sourceOutcome?.outcome).not.toBe("completed");
    const codes = code === undefined ? ["HYPERVISOR_FAILED", "MIGRATION_FAILED"] : [code];
    expect(codes).toContain(scene.sourceOutcome?.error?.code);
    expect(scene.phases).not.toContain("committed");
    expect(scene.outgoing.end?.outcome).not.toBe("completed");
    expect(scene.isOnSource).toBe(true);
  });

  test("a link that breaks when the verdict has been passed on costs nothing any more", async () => {
    const scene = await new Scene({
      mode,
      stream,
      outgoing: { endToldMs: 500 },
      disturb: { when: ({ phases }) => phases.includes("committed"), action: ({ link }) => link.cut() },
    }).run();
    expect(scene.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
    expect(scene.world.history).toEqual(["source runs", "source stops", "destination runs"]);
  });

  test("a verdict on a guest that still runs is not passed on", async () => {
    const scene = await new Scene({
      mode,
      stream,
      disturb: {
        when: ({ link }) => link.writtenBytes > 20_000,
        action: ({ incoming }) => incoming.side!.loader.shut(0),
      },
    }).run();
    expect(scene.sourceOutcome).toMatchObject({
      vm: "running on source",
      error: { code: "PROTOCOL_INVALID_FRAME" },
    });
    expect(scene.phases).not.toContain("committed");
    expect(scene.isOnSource).toBe(true);
  });

  test("a verdict that comes twice is one", async () => {
    const scene = await new Scene({
      mode,
      stream,
      outgoing: { endToldMs: 500 },
      disturb: {
        when: ({ phases }) => phases.includes("committed"),
        action: ({ incoming }) => incoming.side!.loader.shut(0),
      },
    }).run();
    expect(scene.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
    expect(scene.world.history).toEqual(["source runs", "source stops", "destination runs"]);
  });

  test("post-copy is refused as soon as it is announced", async () => {
    const announced = Buffer.from(postcopyStream().bytes);
    const scene = await new Scene({ mode, stream: { ...postcopyStream(), bytes: advised(announced) } }).run();
    expect(scene.sourceOutcome?.error).toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
      message: expect.stringContaining("post-copy"),
    });
    expect(scene.phases).not.toContain("switchover");
    expect(scene.sourceOutcome?.vm).toBe("running on source");
  });

  test("without a return path nobody would hear of a failure: refused before the guest is stopped", async () => {
    const silent = buildGuestStream({ ...fc.sample(plan, { numRuns: 1, seed: 3 })[0]!, returnPath: false });
    const scene = await new Scene({ mode, stream: silent, bytesPerSecond: 50_000 }).run();
    expect(scene.sourceOutcome?.error).toMatchObject({
      code: "HYPERVISOR_INCOMPATIBLE",
      message: expect.stringContaining("return-path"),
    });
    expect(scene.isOnSource).toBe(true);
    expect(scene.phases).not.toContain("committed");
  });

  test("a stream that is not understood goes on as it is, and nobody holds its switchover", async () => {
    const unknown = arbitraryPlan(["command"]).map((plan) => ({ ...plan, returnPath: true }));
    await fc.assert(
      fc.asyncProperty(unknown, async (plan) => {
        const scene = await new Scene({ mode, stream: buildGuestStream(plan) }).run();
        expect(scene.sourceOutcome).toEqual({ outcome: "completed", vm: "with the destination" });
        const { events } = scene.record;
        const unseen = events.slice(events.findIndex(({ type }) => type === "opaque"));
        const isJudged = unseen.some((event) => event.type === "decision" && event.subject === "switchover");
        expect(unseen[0]?.type === "opaque" && isJudged).toBe(false);
        expect(scene.world.history).toEqual(["source runs", "source stops", "destination runs"]);
      }),
      { numRuns: 10 },
    );
  });
});

/** POSTCOPY_ADVISE, without a payload, behind the header and the configuration of `bytes`. */
function advised(bytes: Buffer): Buffer {
  const at = bytes.indexOf(Buffer.of(8, 0, 1, 0, 0));
  return Buffer.concat([bytes.subarray(0, at), Buffer.of(8, 0, 3, 0, 0), bytes.subarray(at)]);
}
