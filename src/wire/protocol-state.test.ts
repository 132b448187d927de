import { describe, expect, test } from "vitest";
import { uncodedData } from "../../test/support/data-frame.ts";
import { ProtocolError } from "../base/errors.ts";
import type { DataFrame, Frame, ResumeStage } from "./frame.ts";
import { abortFrame, helloFrame, refuseFrame } from "./handshake.ts";
import type { Side, Stage } from "./protocol-state.ts";
import { ProtocolState } from "./protocol-state.ts";

const RAW = new Uint8Array(8);
const data = (sequence: number): DataFrame => uncodedData(sequence, RAW);
const ack = (sequence: number): Frame => ({ type: "ack", sequence });
const OWN = {
  deltavee: "0.1.0",
  hypervisor: { kind: "qemu" as const, version: "10.0.2" },
  entropyCodecs: [2, 1],
};
const HELLO = helloFrame({ ...OWN, session: "00112233445566778899aabbccddeeff" });
const WELCOME: Frame = { type: "welcome", version: 3, body: OWN };
const RETURN: Frame = { type: "return", bytes: RAW };
const LOADED: Frame = { type: "loaded" };
const COMMIT: Frame = { type: "commit", resume: true };
const RUNNING: Frame = { type: "running" };
const KEEPALIVE: Frame = { type: "keepalive" };
const ABORT = abortFrame("CANCELLED", "enough");
const REFUSE = refuseFrame("BUSY", "one at a time");

const FROM_SOURCE = new Set<Frame["type"]>(["hello", "data", "commit", "verify"]);

/** One side's state after a conversation in which KEEPALIVE and ABORT are the source's. */
function talk(side: Side, ...frames: Frame[]): ProtocolState {
  const state = new ProtocolState(side);
  for (const frame of frames) {
    const bySource = FROM_SOURCE.has(frame.type) || frame === KEEPALIVE || frame === ABORT;
    if (bySource === (side === "source")) state.sending(frame);
    else expect(state.received(frame)).toBe(true);
  }
  return state;
}

const STREAMING = [HELLO, WELCOME];
const LOADED_ALL = [...STREAMING, data(1), data(2), ack(2), LOADED];

describe("a whole conversation", () => {
  test.each<Side>(["source", "destination"])("passes through all stages at the %s", (side) => {
    expect(talk(side).stage).toBe("opening");
    expect(talk(side, HELLO).stage).toBe("greeting");
    expect(talk(side, ...STREAMING, KEEPALIVE, data(1), RETURN, ack(1)).stage).toBe("streaming");
    expect(talk(side, ...LOADED_ALL, KEEPALIVE, RETURN).stage).toBe("loaded");
    expect(talk(side, ...LOADED_ALL, COMMIT, RETURN, KEEPALIVE).stage).toBe("committed");
    expect(talk(side, ...LOADED_ALL, COMMIT, RUNNING).stage).toBe("finished");
    expect(talk(side, HELLO, REFUSE).stage).toBe("refused");
    expect(talk(side, ...STREAMING, ABORT).stage).toBe("aborted");
  });

  test("an acknowledgement may say the destination's pace", () => {
    const paced: Frame = { type: "ack", sequence: 1, pace: { elapsedMs: 2, busyMs: 1 } };
    const welcome = { ...WELCOME, version: 6 };
    for (const side of ["source", "destination"] as const)
      expect(talk(side, HELLO, welcome, data(1), data(2), paced, ack(2)).ackSequence).toBe(2);
  });

  test("counts what was sent and what was acknowledged", () => {
    const state = talk("source", ...STREAMING, data(1), data(2), data(3), ack(1), ack(2));
    expect([state.dataSequence, state.ackSequence]).toEqual([3, 2]);
    expect(talk("source", ...STREAMING).ackSequence).toBe(0);
  });
});

describe("a peer's frame out of place", () => {
  test.each<[string, Side, Frame[], Frame, string]>([
    [
      "DATA before HELLO",
      "destination",
      [],
      data(1),
      "data from the source when opening: expected hello, resume",
    ],
    [
      "DATA before WELCOME",
      "destination",
      [HELLO],
      data(1),
      "data from the source when greeting: expected abort, keepalive",
    ],
    ["a second HELLO", "destination", STREAMING, HELLO, "hello from the source when streaming"],
    ["a second WELCOME", "source", STREAMING, WELCOME, "welcome from the destination when streaming"],
    ["REFUSE after WELCOME", "source", STREAMING, REFUSE, "refuse from the destination when streaming"],
    ["the source's own frame", "source", STREAMING, data(1), "data from the destination when streaming"],
    ["the destination's own frame", "destination", STREAMING, ack(1), "ack from the source when streaming"],
    ["DATA out of sequence", "destination", [...STREAMING, data(1)], data(3), "data 3: expected 2"],
    ["DATA again", "destination", [...STREAMING, data(1)], data(1), "data 1: expected 2"],
    [
      "DATA in a codec that was not agreed",
      "destination",
      STREAMING,
      { ...data(1), entropyCodec: 3 },
      "data 1 with entropy codec 3: expected one that was agreed",
    ],
    [
      "ACK with a pace in a version without one",
      "source",
      [HELLO, { ...WELCOME, version: 5 }, data(1)],
      { type: "ack", sequence: 1, pace: { elapsedMs: 2, busyMs: 1 } },
      "ack with a pace, which the version agreed upon does not have",
    ],
    [
      "padding in a version without it",
      "destination",
      [HELLO, { ...WELCOME, version: 5 }],
      { ...data(1), payloadKind: 4 },
      "data 1 with padding, which the version agreed upon does not have",
    ],
    ["ACK of what was never sent", "source", [...STREAMING, data(1)], ack(2), "ack 2: expected 0 to 1"],
    [
      "ACK going backwards",
      "source",
      [...STREAMING, data(1), data(2), ack(2)],
      ack(1),
      "ack 1: expected 2 to 2",
    ],
    [
      "LOADED before the last ACK",
      "source",
      [...STREAMING, data(1), data(2), ack(1)],
      LOADED,
      "loaded after ack 1: expected it after the ack of the last data, which is 2",
    ],
    ["LOADED of nothing", "source", STREAMING, LOADED, "loaded after ack 0"],
    ["LOADED twice", "source", LOADED_ALL, LOADED, "loaded from the destination when loaded"],
    ["DATA after LOADED", "destination", LOADED_ALL, data(3), "data from the source when loaded"],
    [
      "COMMIT before LOADED",
      "destination",
      [...STREAMING, data(1), ack(1)],
      COMMIT,
      "commit from the source",
    ],
    ["COMMIT twice", "destination", [...LOADED_ALL, COMMIT], COMMIT, "commit from the source when committed"],
    ["RUNNING before COMMIT", "source", LOADED_ALL, RUNNING, "running from the destination when loaded"],
    ["ABORT by the source after COMMIT", "destination", [...LOADED_ALL, COMMIT], ABORT, "when committed"],
    [
      "anything after ABORT",
      "destination",
      [...STREAMING, ABORT],
      KEEPALIVE,
      "keepalive from the source when aborted: expected nothing more",
    ],
    [
      "anything after REFUSE",
      "source",
      [HELLO, REFUSE],
      KEEPALIVE,
      "keepalive from the destination when refused: expected nothing more",
    ],
    [
      "a WELCOME to something else",
      "source",
      [HELLO],
      { type: "welcome", version: 1, body: OWN },
      "welcome does not answer the hello: version 1 was not offered (3 to 6)",
    ],
  ])("%s is a protocol error and changes nothing", (_, side, before, frame, message) => {
    const state = talk(side, ...before);
    const { stage, committed, dataSequence, ackSequence } = state;
    expect(() => state.received(frame)).toThrow(ProtocolError);
    expect(() => state.received(frame)).toThrow(message);
    expect(state).toMatchObject({ stage, committed, dataSequence, ackSequence });
  });

  test("out of our own mouth it is a failed assertion, not the peer's error", () => {
    expect(() => talk("source").sending(data(1))).toThrow("Assertion failed: sending a frame out of place");
    expect(() => talk("destination", ...LOADED_ALL).sending(RUNNING)).toThrow("Assertion failed");
    expect(() => talk("source", ...LOADED_ALL, COMMIT).sending(ABORT)).toThrow("Assertion failed");
  });
});

describe("committed", () => {
  test("is false until COMMIT and true ever after, on either side", () => {
    for (const side of ["source", "destination"] as const) {
      expect(talk(side, ...LOADED_ALL).committed).toBe(false);
      expect(talk(side, ...LOADED_ALL, COMMIT).committed).toBe(true);
      expect(talk(side, ...LOADED_ALL, COMMIT, RUNNING).committed).toBe(true);
    }
  });

  test("stays true at the source when the destination aborts after COMMIT", () => {
    const state = talk("source", ...LOADED_ALL, COMMIT);
    expect(state.received(abortFrame("HYPERVISOR_FAILED", "gone"))).toBe(true);
    expect([state.stage, state.committed]).toEqual(["aborted", true]);
  });

  test("stays false at a destination that aborted before COMMIT arrived", () => {
    const state = talk("destination", ...LOADED_ALL);
    state.sending(ABORT);
    expect(state.received(COMMIT)).toBe(false);
    expect(state.committed).toBe(false);
  });
});

const RESUMPTION = { token: "ffeeddccbbaa99887766554433221100", timeoutMs: 60_000 };
const RESUMABLE: Frame = { type: "welcome", version: 3, body: { ...OWN, resumption: RESUMPTION } };
const resume = (stage: ResumeStage, connection = 2): Frame => ({
  type: "resume",
  version: 3,
  stage,
  connection,
  session: HELLO.body.session,
  token: RESUMPTION.token,
  returnBytes: 0,
});
const resumed = (stage: ResumeStage, dataSequence: number, ackSequence: number): Frame => ({
  type: "resumed",
  stage,
  dataSequence,
  ackSequence,
});

const POSTCOPY_HELLO = helloFrame({ ...HELLO.body, postcopy: true });
const POSTCOPY_WELCOME: Frame = { ...RESUMABLE, version: 4 };
const READY: Frame = { type: "ready" };
const READY_ALL = [POSTCOPY_HELLO, POSTCOPY_WELCOME, data(1), data(2), ack(1), READY];
const GIVEN_ALL = [...READY_ALL, data(3), ack(2), RETURN, COMMIT];
const FETCHING_ALL = [...GIVEN_ALL, data(4), ack(3), RETURN, RUNNING];

describe("post-copy", () => {
  test.each<Side>(["source", "destination"])(
    "goes on sending after COMMIT, to its end, at the %s",
    (side) => {
      expect(talk(side, ...READY_ALL, KEEPALIVE, data(3), ack(3))).toMatchObject({
        stage: "ready",
        committed: false,
      });
      expect(talk(side, ...GIVEN_ALL, KEEPALIVE)).toMatchObject({ stage: "given", committed: true });
      expect(talk(side, ...FETCHING_ALL, data(5), ack(4), RETURN, KEEPALIVE).stage).toBe("fetching");
      expect(talk(side, ...FETCHING_ALL, ack(4), LOADED).stage).toBe("finished");
    },
  );

  test("is a violation where HELLO has not said that it may come, or the version does not know it", () => {
    const message = "ready, although post-copy was not agreed upon";
    expect(() => talk("source", ...STREAMING, data(1), READY)).toThrow(message);
    expect(() => talk("source", POSTCOPY_HELLO, RESUMABLE, data(1), READY)).toThrow(message);
  });

  test.each<[string, Side, Frame[], Frame]>([
    ["COMMIT before READY", "destination", READY_ALL.slice(0, -1), COMMIT],
    ["READY twice", "source", READY_ALL, READY],
    ["LOADED before RUNNING", "source", [...GIVEN_ALL, ack(3)], LOADED],
    ["LOADED before the last ACK", "source", FETCHING_ALL, LOADED],
    ["ABORT by the source after COMMIT", "destination", GIVEN_ALL, ABORT],
    ["ABORT by the source after RUNNING", "destination", FETCHING_ALL, ABORT],
    ["DATA after LOADED", "destination", [...FETCHING_ALL, ack(4), LOADED], data(5)],
  ])("%s is a protocol error", (_, side, before, frame) => {
    expect(() => talk(side, ...before).received(frame)).toThrow(ProtocolError);
  });
});

const VERIFY_HELLO = helloFrame({ ...HELLO.body, verify: true });
const VERIFY_WELCOME: Frame = { ...RESUMABLE, version: 5 };
const VERIFY: Frame = { type: "verify", block: "pc.ram", offsetBytes: 0, pieceBytes: 4096, pieces: 2 };
const digests = (count: number): Frame => ({ type: "digests", digests: new Uint8Array(32 * count) });
const TO_VERIFY = [VERIFY_HELLO, VERIFY_WELCOME, data(1), ack(1), LOADED];

describe("a comparison of RAM", () => {
  test.each<Side>(["source", "destination"])("comes between LOADED and COMMIT, at the %s", (side) => {
    expect(talk(side, ...TO_VERIFY, VERIFY, KEEPALIVE, RETURN).stage).toBe("verifying");
    const done = talk(side, ...TO_VERIFY, VERIFY, digests(2), VERIFY, digests(2), COMMIT);
    expect(done).toMatchObject({ stage: "committed", committed: true });
    expect(talk(side, ...TO_VERIFY, VERIFY, ABORT)).toMatchObject({ stage: "aborted", committed: false });
  });

  test("is a violation where HELLO has not said that it will come, or the version does not know it", () => {
    const message = "verify, although it was not agreed upon";
    const unasked = [HELLO, VERIFY_WELCOME, data(1), ack(1), LOADED];
    expect(() => talk("destination", ...unasked).received(VERIFY)).toThrow(message);
    const older = [VERIFY_HELLO, POSTCOPY_WELCOME, data(1), ack(1), LOADED];
    expect(() => talk("destination", ...older).received(VERIFY)).toThrow(message);
  });

  test.each<[string, Side, Frame[], Frame]>([
    ["VERIFY before LOADED", "destination", TO_VERIFY.slice(0, -1), VERIFY],
    ["VERIFY before the answer", "destination", [...TO_VERIFY, VERIFY], VERIFY],
    ["COMMIT before the answer", "destination", [...TO_VERIFY, VERIFY], COMMIT],
    ["an answer that nobody has asked for", "source", TO_VERIFY, digests(2)],
    ["an answer to less", "source", [...TO_VERIFY, VERIFY], digests(1)],
    ["an answer to more", "source", [...TO_VERIFY, VERIFY], digests(3)],
    ["a second answer", "source", [...TO_VERIFY, VERIFY, digests(2)], digests(2)],
  ])("%s is a protocol error", (_, side, before, frame) => {
    expect(() => talk(side, ...before).received(frame)).toThrow(ProtocolError);
  });

  test("is begun anew when the connection has broken", () => {
    const state = talk("source", ...TO_VERIFY, VERIFY);
    state.lost();
    expect(state.reached).toBe("loaded");
  });
});

describe("a connection that breaks", () => {
  /** Both sides after a connection that broke has been resumed. */
  function resumedAfter(atSource: Frame[], atDestination: Frame[]): Record<Side, ProtocolState> {
    const source = talk("source", ...atSource);
    const destination = talk("destination", ...atDestination);
    source.lost();
    destination.lost();
    const first = { ...resume(source.reached), version: 4 } as Frame;
    source.sending(first);
    destination.received(first);
    const answer = resumed(destination.reached, destination.dataSequence, destination.ackSequence);
    destination.sending(answer);
    source.received(answer);
    return { source, destination };
  }

  test.each<[string, Frame[], Frame[], Stage, Frame[]]>([
    ["READY", READY_ALL.slice(0, -1), READY_ALL, "streaming", [READY]],
    ["COMMIT", GIVEN_ALL, GIVEN_ALL.slice(0, -1), "ready", [COMMIT]],
    ["RUNNING", FETCHING_ALL.slice(0, -1), FETCHING_ALL, "given", [RUNNING]],
    ["nothing", FETCHING_ALL, FETCHING_ALL, "given", [RUNNING]],
    ["LOADED", [...FETCHING_ALL, ack(4)], [...FETCHING_ALL, ack(4), LOADED], "given", [RUNNING, LOADED]],
  ])(
    "in post-copy, %s lost, goes on from the earlier stage, and DATA with it",
    (_, from, to, stage, again) => {
      const { source, destination } = resumedAfter(from, to);
      expect([source.stage, destination.stage]).toEqual([stage, stage]);
      const sequence = destination.dataSequence + 1;
      if (!again.includes(LOADED)) {
        if (source.dataSequence < sequence) source.sending(data(sequence));
        else source.sendingAgain(sequence);
        destination.received(data(sequence));
      }
      for (const frame of again) {
        const [sender, receiver] = frame === COMMIT ? [source, destination] : [destination, source];
        sender.sending(frame);
        receiver.received(frame);
      }
      expect(source.stage).toBe(destination.stage);
    },
  );

  test("in post-copy, before COMMIT the source may give up on the next connection, after it never", () => {
    expect(() => resumedAfter(READY_ALL, READY_ALL).source.sending(ABORT)).not.toThrow();
    const { source } = resumedAfter(GIVEN_ALL, GIVEN_ALL.slice(0, -1));
    expect(source.committed).toBe(true);
    expect(() => source.sending(ABORT)).toThrow("Assertion failed");
  });

  test.each<[string, ResumeStage, Frame[]]>([
    ["committed", "committed", READY_ALL],
    ["ready", "ready", [HELLO, RESUMABLE, data(1), ack(1), LOADED]],
    ["given", "given", [HELLO, RESUMABLE, data(1), ack(1), LOADED]],
    ["loaded", "loaded", READY_ALL],
  ])("a source that is %s does not fit a destination of the other kind", (_, stage, before) => {
    const destination = talk("destination", ...before);
    destination.lost();
    expect(() => destination.received(resume(stage))).toThrow(ProtocolError);
  });

  /** A side that lost its connection after `frames`. */
  function lost(side: Side, ...frames: Frame[]): ProtocolState {
    const state = talk(side, HELLO, RESUMABLE, ...frames);
    state.lost();
    return state;
  }
  const ALL = [data(1), data(2), ack(2), LOADED];

  test("goes on where the destination has it, and DATA is sent again from there", () => {
    const source = lost("source", data(1), data(2), data(3), ack(1));
    const destination = lost("destination", data(1), data(2), ack(1));
    source.sending(resume(source.reached));
    destination.received(resume("streaming"));
    const answer = resumed(destination.reached, destination.dataSequence, 2);
    destination.sending(answer);
    source.received(answer);
    expect([source.stage, source.dataSequence, source.ackSequence]).toEqual(["streaming", 2, 2]);
    expect([destination.stage, destination.dataSequence, destination.ackSequence]).toEqual([
      "streaming",
      2,
      2,
    ]);
    expect(() => source.sendingAgain(4)).toThrow("Assertion failed");
    source.sendingAgain(3);
    destination.received(data(3));
    source.sending(data(4));
  });

  test.each<[string, Frame[], Frame[], Stage, Frame]>([
    ["LOADED", ALL.slice(0, -1), ALL, "streaming", LOADED],
    ["COMMIT", [...ALL, COMMIT], ALL, "loaded", COMMIT],
    ["RUNNING", [...ALL, COMMIT], [...ALL, COMMIT, RUNNING], "committed", RUNNING],
  ])("a lost %s is sent again", (_, atSource, atDestination, stage, again) => {
    const source = lost("source", ...atSource);
    const destination = lost("destination", ...atDestination);
    const { committed } = source;
    source.sending(resume(source.reached));
    destination.received(resume(source.reached));
    const answer = resumed(destination.reached, 2, 2);
    destination.sending(answer);
    source.received(answer);
    expect([source.stage, destination.stage, source.committed]).toEqual([stage, stage, committed]);
    const [sender, receiver] = again === COMMIT ? [source, destination] : [destination, source];
    sender.sending(again);
    receiver.received(again);
    expect(source.stage).toBe(destination.stage);
  });

  test("a source that has sent COMMIT stays committed, and never sends ABORT, whatever has arrived", () => {
    const source = lost("source", ...ALL, COMMIT);
    source.sending(resume("committed"));
    expect(() => source.sending(ABORT)).toThrow("Assertion failed");
    source.received(resumed("loaded", 2, 2));
    expect(source.committed).toBe(true);
    expect(() => source.sending(ABORT)).toThrow("Assertion failed");
    source.lost();
    expect(source.reached).toBe("committed");
  });

  test("what a destination has told stays told, although the source did not hear it", () => {
    const destination = lost("destination", ...ALL);
    destination.received(resume("streaming"));
    destination.sending(resumed("loaded", 2, 2));
    expect(destination.stage).toBe("streaming");
    destination.lost();
    expect(destination.reached).toBe("loaded");
  });

  test.each<[string, Side, Frame[], Frame[], string]>([
    ["of a source that is ahead", "destination", [data(1)], [resume("loaded")], "a source that is loaded"],
    [
      "at a destination that is ahead",
      "source",
      [data(1), ack(1)],
      [resume("streaming"), resumed("committed", 1, 1)],
      "a destination that is committed",
    ],
    [
      "with DATA that was never sent",
      "source",
      [data(1)],
      [resume("streaming"), resumed("streaming", 2, 1)],
      "resumed with data 2 and ack 1: expected 0 to 1",
    ],
    [
      "with an ACK that was taken back",
      "source",
      [data(1), ack(1)],
      [resume("streaming"), resumed("streaming", 1, 0)],
      "resumed with data 1 and ack 0: expected 1 to 1",
    ],
    [
      "with an ACK of what has not arrived",
      "source",
      [data(1), data(2)],
      [resume("streaming"), resumed("streaming", 1, 2)],
      "resumed with data 1 and ack 2",
    ],
  ])("resumption %s is a protocol error", (_, side, before, frames, message) => {
    const state = lost(side, ...before);
    const last = frames.at(-1)!;
    for (const frame of frames.slice(0, -1)) state.sending(frame);
    expect(() => state.received(last)).toThrow(ProtocolError);
    expect(() => state.received(last)).toThrow(message);
  });

  test("where it was not agreed, nothing of it is said", () => {
    for (const frame of [{ type: "returned", returnBytes: 1 } as const, { type: "done" } as const]) {
      const state = talk("destination", ...LOADED_ALL, COMMIT, RUNNING);
      expect(() => state.received(frame)).toThrow("although connections are not resumed");
    }
    const state = talk("source", ...STREAMING);
    state.lost();
    expect(() => state.sending(resume("streaming"))).toThrow("although connections are not resumed");
    expect(() => talk("source", HELLO).lost()).toThrow("Assertion failed");
  });
});

describe("two sides with frames in flight", () => {
  // All interleavings, not samples: every state that two correct engines can reach with at most two DATA
  // frames and FLIGHT_FRAMES_MAX frames on the way in each direction, found breadth first.
  const FLIGHT_FRAMES_MAX = 3;
  type Action = "source reads" | "destination reads" | "stream ends" | { side: Side; frame: Frame };

  class World {
    readonly source = new ProtocolState("source");
    readonly destination = new ProtocolState("destination");
    readonly toSource: Frame[] = [];
    readonly toDestination: Frame[] = [];
    /** The hypervisors know this; it is not on the wire. */
    streamEnded = false;
    /** Which side has ended the conversation itself, and so ignores what it reads. */
    readonly endedBy = new Set<Side>();

    /** False when an engine would not do this now. Throws when a correct peer is taken for a wrong one. */
    do(action: Action): boolean {
      if (action === "stream ends") {
        if (this.streamEnded || this.source.dataSequence === 0) return false;
        this.streamEnded = true;
      } else if (typeof action === "string") {
        const frame = (action === "source reads" ? this.toSource : this.toDestination).shift();
        if (frame === undefined) return false;
        this[action === "source reads" ? "source" : "destination"].received(frame);
      } else {
        const queue = action.side === "source" ? this.toDestination : this.toSource;
        // One KEEPALIVE or RETURN on the way stands for many.
        if (queue.length === FLIGHT_FRAMES_MAX || queue.at(-1) === action.frame) return false;
        if (action.frame.type === "data" && this.streamEnded) return false;
        if (action.frame.type === "loaded" && !this.#allArrived()) return false;
        if (action.frame.type === "ack" && action.frame.sequence <= this.destination.ackSequence)
          return false;
        try {
          this[action.side].sending(action.frame);
        } catch {
          return false;
        }
        queue.push(action.frame);
        if (action.frame.type === "abort" || action.frame.type === "refuse") this.endedBy.add(action.side);
      }
      return true;
    }

    #allArrived(): boolean {
      return this.streamEnded && this.source.dataSequence === this.destination.dataSequence;
    }

    key(): string {
      const side = (state: ProtocolState) => [
        state.stage,
        state.dataSequence,
        state.ackSequence,
        state.committed,
      ];
      const queue = (frames: Frame[]) =>
        frames.map((f) => f.type + ("sequence" in f ? f.sequence : "")).join();
      return [
        side(this.source),
        side(this.destination),
        queue(this.toSource),
        queue(this.toDestination),
        this.streamEnded,
        this.endedBy.has("source"),
        this.endedBy.has("destination"),
      ].join("|");
    }
  }

  const by = (side: Side, ...frames: Frame[]): Action[] => frames.map((frame) => ({ side, frame }));
  const ACTIONS: Action[] = [
    "source reads",
    "destination reads",
    "stream ends",
    ...by("source", data(1), data(2), COMMIT, ABORT, KEEPALIVE),
    ...by("destination", REFUSE, ack(1), ack(2), RETURN, LOADED, RUNNING, ABORT, KEEPALIVE),
  ];
  const ENDS = ["committed/loaded", "committed/committed", "committed/aborted", "finished/finished"];
  const POSTCOPY_ENDS = [
    "given/ready",
    "given/given",
    "given/aborted",
    "given/fetching",
    "fetching/finished",
  ];

  test.each<[string, Action[], string[]]>([
    ["with all of the RAM", [...by("source", HELLO), ...by("destination", WELCOME)], ENDS],
    [
      "as post-copy",
      [...by("source", POSTCOPY_HELLO), ...by("destination", POSTCOPY_WELCOME, READY)],
      [...ENDS, ...POSTCOPY_ENDS],
    ],
  ])(
    "never take a correct peer for a wrong one, and never both own the guest: %s",
    (_, special, dangerous) => {
      const actions = [...ACTIONS, ...special];
      const seen = new Set<string>([""]);
      const stages = new Set<string>();
      let paths: Action[][] = [[]];
      while (paths.length > 0) {
        const longer: Action[][] = [];
        for (const path of paths) {
          for (const action of actions) {
            const world = new World();
            for (const step of path) world.do(step);
            if (!world.do(action)) continue;
            const key = world.key();
            if (seen.has(key)) continue;
            seen.add(key);
            stages.add(`${world.source.stage}/${world.destination.stage}`);
            // The source may resume while its committed is false, the destination may run once its own is true.
            expect([!world.source.committed, world.destination.committed]).not.toEqual([true, true]);
            longer.push([...path, action]);
          }
        }
        paths = longer;
      }
      // The exploration is worth something only if it gets to where it is dangerous.
      for (const pair of dangerous) expect(stages).toContain(pair);
    },
  );
});
