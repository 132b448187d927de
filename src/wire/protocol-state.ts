// What may be said when. Both engines hold one of these for a migration, whichever connection there is, and show it
// every frame, before it is sent and after it was read. It knows no socket, no timer and no hypervisor. Here lies
// `committed`, the line of docs/reliability.md between "the source may resume the guest" and "the source must never". See
// PROTOCOL.md.

import { assert } from "../base/assert.ts";
import { ProtocolError } from "../base/errors.ts";
import type {
  Frame,
  FrameType,
  HelloFrame,
  ResumedFrame,
  ResumeFrame,
  ResumeStage,
  WelcomeFrame,
} from "./frame.ts";
import { DIGEST_BYTES } from "./frame.ts";
import {
  PACE_VERSION,
  PADDING_VERSION,
  POSTCOPY_VERSION,
  VERIFY_VERSION,
  welcomeMismatch,
} from "./handshake.ts";
import { PAYLOAD_PADDING } from "./page-batch.ts";

export type Side = "source" | "destination";

export type Stage =
  /** Connected, nothing said. */
  | "opening"
  /** HELLO is out. */
  | "greeting"
  /** WELCOME is out: the hypervisor's stream flows. */
  | "streaming"
  /** The destination has all of it, paused. */
  | "loaded"
  /** Loaded, and VERIFY is out: the destination says what it has. */
  | "verifying"
  /** COMMIT is out: the guest is the destination's. */
  | "committed"
  /** Post-copy: the destination could run the guest, and holds it paused; RAM still flows. */
  | "ready"
  /** COMMIT is out: the guest is the destination's, and part of its RAM the source's. */
  | "given"
  /** It runs there, and what is missing follows. */
  | "fetching"
  | "finished"
  | "refused"
  | "aborted"
  /** The connection broke: another one is to begin with RESUME. */
  | "lost"
  /** RESUME is out. */
  | "resuming";

interface Rule {
  readonly by: Side | "both";
  readonly to: Stage;
}

const source = (to: Stage): Rule => ({ by: "source", to });
const destination = (to: Stage): Rule => ({ by: "destination", to });
const both = (to: Stage): Rule => ({ by: "both", to });

/**
 * One table for both sides. Frames cross on the way, so the sides may be in different stages: a frame is
 * listed wherever its receiver may be when its sender was right to send it.
 */
const RULES: Readonly<Record<Stage, Partial<Record<FrameType, Rule>>>> = {
  opening: {
    hello: source("greeting"),
    // At the destination, whose next connection may be anybody's: it then asks the state of the migration.
    resume: source("resuming"),
    refuse: destination("refused"),
  },
  greeting: {
    welcome: destination("streaming"),
    refuse: destination("refused"),
    abort: source("aborted"),
    keepalive: both("greeting"),
  },
  streaming: {
    data: source("streaming"),
    returned: source("streaming"),
    ack: destination("streaming"),
    return: destination("streaming"),
    loaded: destination("loaded"),
    ready: destination("ready"),
    abort: both("aborted"),
    keepalive: both("streaming"),
  },
  loaded: {
    returned: source("loaded"),
    return: destination("loaded"),
    verify: source("verifying"),
    commit: source("committed"),
    abort: both("aborted"),
    keepalive: both("loaded"),
  },
  verifying: {
    returned: source("verifying"),
    return: destination("verifying"),
    digests: destination("loaded"),
    abort: both("aborted"),
    keepalive: both("verifying"),
  },
  committed: {
    returned: source("committed"),
    return: destination("committed"),
    running: destination("finished"),
    // It may have been sent before COMMIT arrived. The source does not resume by itself all the same.
    abort: destination("aborted"),
    keepalive: both("committed"),
  },
  ready: {
    data: source("ready"),
    returned: source("ready"),
    ack: destination("ready"),
    return: destination("ready"),
    commit: source("given"),
    abort: both("aborted"),
    keepalive: both("ready"),
  },
  given: {
    data: source("given"),
    returned: source("given"),
    ack: destination("given"),
    return: destination("given"),
    running: destination("fetching"),
    abort: destination("aborted"),
    keepalive: both("given"),
  },
  fetching: {
    data: source("fetching"),
    returned: source("fetching"),
    ack: destination("fetching"),
    return: destination("fetching"),
    loaded: destination("finished"),
    abort: destination("aborted"),
    keepalive: both("fetching"),
  },
  finished: {
    // Sent before the last frame arrived.
    returned: source("finished"),
    done: source("finished"),
    keepalive: source("finished"),
  },
  refused: {},
  aborted: {},
  lost: {
    resume: source("resuming"),
  },
  resuming: {
    // Where it leads to depends on what both sides have said.
    resumed: destination("resuming"),
    refuse: destination("refused"),
    abort: source("aborted"),
    keepalive: both("resuming"),
  },
};

/** How many steps a migration has taken, whichever way it goes: with all of the RAM, or as post-copy. */
const STEPS: Readonly<Record<ResumeStage, number>> = {
  streaming: 0,
  loaded: 1,
  ready: 1,
  committed: 2,
  given: 2,
};

/** What a side says that lost the connection in a stage. */
const REACHED: Partial<Record<Stage, ResumeStage>> = {
  streaming: "streaming",
  loaded: "loaded",
  verifying: "loaded",
  committed: "committed",
  ready: "ready",
  given: "given",
  fetching: "given",
};
const DATA_STAGES: ReadonlySet<Stage> = new Set<Stage>(["streaming", "ready", "given", "fetching"]);

export class ProtocolState {
  readonly #side: Side;
  #stage: Stage = "opening";
  #committed = false;
  /** READY was said. */
  #isPostcopy = false;
  /** This side has sent REFUSE or ABORT: what arrives after it crossed it on the way. */
  #endedByUs = false;
  #hello: HelloFrame | undefined;
  #welcome: WelcomeFrame | undefined;
  #dataSequence = 0;
  #ackSequence = 0;
  /** Pieces that the last VERIFY asks about. */
  #asked = 0;
  /** What this side had come to when it lost the connection. */
  #reached: ResumeStage | undefined;
  #resume: ResumeFrame | undefined;

  constructor(side: Side) {
    this.#side = side;
  }

  get stage(): Stage {
    return this.#stage;
  }

  /**
   * At the source: false, it may resume the guest; true, it must never, unless a person decides so.
   * At the destination: false, it must never let the guest run; true, the guest is its own. Never goes back.
   */
  get committed(): boolean {
    return this.#committed;
  }

  /** Sequence of the last DATA, 0 before the first. The next one is one higher. */
  get dataSequence(): number {
    return this.#dataSequence;
  }

  /** Highest sequence acknowledged, 0 before the first ACK. */
  get ackSequence(): number {
    return this.#ackSequence;
  }

  /** Whether the version that WELCOME has chosen is that one, or a later one. */
  speaks(version: number): boolean {
    return (this.#welcome?.version ?? 0) >= version;
  }

  /** What RESUME and RESUMED say of this side. Only of a migration whose connection was lost. */
  get reached(): ResumeStage {
    assert(this.#reached !== undefined, "only what was lost is resumed");
    return this.#reached;
  }

  /** The connection broke, after WELCOME; perhaps one that was to resume another. */
  lost(): void {
    // What was reached stays reached, even if a resumption has found that the peer does not know of it.
    const stage = REACHED[this.#stage];
    if (this.#committed) this.#reached = this.#isPostcopy ? "given" : "committed";
    else if (stage !== undefined) this.#reached = later(this.#reached ?? stage, stage);
    assert(this.#reached !== undefined, `a connection lost when ${this.#stage} cannot be resumed`);
    this.#stage = "lost";
    this.#resume = undefined;
  }

  /** DATA that was sent before on a connection that broke. */
  sendingAgain(sequence: number): void {
    assert(
      this.#side === "source" && DATA_STAGES.has(this.#stage) && sequence === this.#dataSequence + 1,
      `sending DATA ${sequence} again out of place`,
    );
    this.#dataSequence = sequence;
  }

  /**
   * Call before the frame's first byte is given to the link: with COMMIT, `committed` must be true before the
   * peer can possibly know of it. A frame that is out of place is our own mistake, hence an assertion.
   */
  sending(frame: Frame): void {
    const problem = this.#problem(frame, this.#side);
    assert(problem === undefined, `sending a frame out of place: ${problem}`);
    this.#apply(frame);
    if (this.#stage === "refused" || this.#stage === "aborted") this.#endedByUs = true;
  }

  /**
   * False: ignore the frame, this side has already refused or aborted and it crossed that on the way.
   * @throws ProtocolError PROTOCOL_INVALID_FRAME when the peer was not allowed to send it
   */
  received(frame: Frame): boolean {
    if (this.#endedByUs) return false;
    const problem = this.#problem(frame, this.#side === "source" ? "destination" : "source");
    if (problem !== undefined) throw new ProtocolError("PROTOCOL_INVALID_FRAME", problem);
    this.#apply(frame);
    return true;
  }

  #problem(frame: Frame, sender: Side): string | undefined {
    const rule = RULES[this.#stage][frame.type];
    if (rule === undefined || !isBy(rule, sender)) {
      const legal = Object.entries(RULES[this.#stage]).filter(([, other]) => isBy(other, sender));
      const expected = legal.length === 0 ? "nothing more" : legal.map(([type]) => type).join(", ");
      return `${frame.type} from the ${sender} when ${this.#stage}: expected ${expected}`;
    }
    switch (frame.type) {
      case "welcome": {
        const mismatch = this.#hello && welcomeMismatch(this.#hello, frame);
        return mismatch && `welcome does not answer the hello: ${mismatch}`;
      }
      case "data":
        if (frame.sequence !== this.#dataSequence + 1) {
          return `data ${frame.sequence}: expected ${this.#dataSequence + 1}`;
        }
        if (!this.#welcome?.body.entropyCodecs.includes(frame.entropyCodec)) {
          return `data ${frame.sequence} with entropy codec ${frame.entropyCodec}: expected one that was agreed`;
        }
        if (frame.payloadKind === PAYLOAD_PADDING && !this.speaks(PADDING_VERSION))
          return `data ${frame.sequence} with padding, which the version agreed upon does not have`;
        return undefined;
      case "ack":
        if (frame.pace !== undefined && !this.speaks(PACE_VERSION))
          return "ack with a pace, which the version agreed upon does not have";
        return frame.sequence < this.#ackSequence || frame.sequence > this.#dataSequence
          ? `ack ${frame.sequence}: expected ${this.#ackSequence} to ${this.#dataSequence}`
          : undefined;
      case "loaded":
        return this.#dataSequence === 0 || this.#ackSequence !== this.#dataSequence
          ? `loaded after ack ${this.#ackSequence}: expected it after the ack of the last data, ` +
              `which is ${this.#dataSequence}`
          : undefined;
      case "abort":
        return sender === "source" && this.#committed ? "abort from the source after COMMIT" : undefined;
      case "ready": {
        const isAgreed = this.#hello?.body.postcopy === true && this.speaks(POSTCOPY_VERSION);
        return isAgreed ? undefined : "ready, although post-copy was not agreed upon";
      }
      case "verify": {
        const isAgreed = this.#hello?.body.verify === true && this.speaks(VERIFY_VERSION);
        return isAgreed ? undefined : "verify, although it was not agreed upon";
      }
      case "digests": {
        const digests = frame.digests.length / DIGEST_BYTES;
        return digests === this.#asked ? undefined : `${digests} digests: expected ${this.#asked}`;
      }
      case "returned":
      case "done":
        return this.#resumable ? undefined : `${frame.type}, although connections are not resumed`;
      case "resume":
        return this.#resumeProblem(frame);
      case "resumed":
        return this.#resumedProblem(frame);
      default:
        return undefined;
    }
  }

  /** Whether broken connections of this migration are resumed. */
  get #resumable(): boolean {
    return this.#welcome?.body.resumption !== undefined;
  }

  #resumeProblem({ stage }: ResumeFrame): string | undefined {
    // A stranger's first frame, for the migration to judge.
    if (this.#side === "destination" && this.#stage === "opening") return undefined;
    if (!this.#resumable) return "resume, although connections are not resumed";
    return this.#side === "source" ? undefined : stagesProblem(stage, this.reached);
  }

  #resumedProblem({ stage, dataSequence, ackSequence }: ResumedFrame): string | undefined {
    if (this.#resume === undefined || this.#reached === undefined)
      return "resumed, although nothing was lost";
    const problem = stagesProblem(this.#resume.stage, stage);
    if (problem !== undefined) return problem;
    const inOrder =
      this.#ackSequence <= ackSequence && ackSequence <= dataSequence && dataSequence <= this.#dataSequence;
    return inOrder
      ? undefined
      : `resumed with data ${dataSequence} and ack ${ackSequence}: expected ${this.#ackSequence} to ${this.#dataSequence}`;
  }

  #apply(frame: Frame): void {
    const rule = RULES[this.#stage][frame.type];
    assert(rule !== undefined, "only frames without a problem are applied");
    this.#stage = rule.to;
    if (frame.type === "hello") this.#hello = frame;
    else if (frame.type === "welcome") this.#welcome = frame;
    else if (frame.type === "data") this.#dataSequence = frame.sequence;
    else if (frame.type === "ack") this.#ackSequence = frame.sequence;
    else if (frame.type === "verify") this.#asked = frame.pieces;
    else if (frame.type === "commit") this.#committed = true;
    else if (frame.type === "ready") this.#isPostcopy = true;
    else if (frame.type === "resume") this.#resume = frame;
    else if (frame.type === "resumed") {
      // Whoever is further than the other sends again what took it there.
      this.#stage = earlier(this.#resume!.stage, frame.stage);
      this.#dataSequence = frame.dataSequence;
      this.#ackSequence = frame.ackSequence;
    }
  }
}

function earlier(a: ResumeStage, b: ResumeStage): ResumeStage {
  return STEPS[a] < STEPS[b] ? a : b;
}

function later(a: ResumeStage, b: ResumeStage): ResumeStage {
  return earlier(a, b) === a ? b : a;
}

/** Only LOADED or READY, and COMMIT, can have been lost on the way, and each takes both sides one step. */
function stagesProblem(source: ResumeStage, destination: ResumeStage): string | undefined {
  const lostOnTheWay =
    (source === "streaming" && STEPS[destination] === 1) ||
    (source === "committed" && destination === "loaded") ||
    (source === "given" && destination === "ready");
  if (source === destination || lostOnTheWay) return undefined;
  return `resumption of a source that is ${source} at a destination that is ${destination}`;
}

function isBy(rule: Rule, sender: Side): boolean {
  return rule.by === "both" || rule.by === sender;
}
