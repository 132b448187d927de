// What the engine asks of the world: byte channels, and the two hypervisors. Sockets, QMP and the embedded
// hypervisor implement these at the rim; tests and the simulator implement them in memory.

export interface ChannelListener {
  /**
   * Where the channel may put the next bytes, if it can: asked once at first, and then after each call of `data`.
   * `data` is given the part of it that was filled. A channel that cannot do this gives bytes of its own.
   */
  space?(): Uint8Array;
  /** The next bytes; valid only during the call. */
  data(bytes: Uint8Array): void;
  /** The channel takes bytes again after `write` had returned false. */
  drained(): void;
  /** The peer will send no more; everything it sent has been delivered. */
  ended(): void;
  /** It broke. Neither `data` nor `ended` follow. */
  failed(error: Error): void;
}

/** An ordered, reliable, two-way connection of bytes. */
export interface Channel {
  /** Must be called once, before anything arrives. */
  listen(listener: ChannelListener): void;
  /**
   * `bytes` must not change until the operating system has them, which is when `written` is called, or when the peer
   * has answered to them. False: the peer is behind, wait for `drained`. Failure is reported by `failed`, never thrown.
   */
  write(bytes: Uint8Array, written?: () => void): boolean;
  /** No `data` until `resume`; the bytes of a call that pauses stay valid until then. */
  pause(): void;
  resume(): void;
  /** Sends what is written, then says that no more will come. */
  end(): void;
  /** Drops the connection; nothing is called afterwards. */
  destroy(): void;
}

/** RAM of a guest that stands still, for whoever compares it with a copy of it. */
export interface StoppedRam {
  /** Bytes of a RAMBlock that can be read here; undefined: none. */
  lengthOf(idstr: string): number | undefined;
  /**
   * Fills `target` (at most 1 MiB) with what is at `offsetBytes`, a multiple of 4096, of a block that can be read.
   * @throws DeltaveeError VERIFY_UNAVAILABLE, HYPERVISOR_FAILED
   */
  read(idstr: string, offsetBytes: number, target: Uint8Array): Promise<void>;
  close(): void;
}

/** Of a RAMBlock: what its hypervisor has never touched. It reads as zeros until something is loaded there. */
export interface UntouchedRam {
  readonly idstr: string;
  readonly ranges: { offsetBytes: number; lengthBytes: number }[];
}

export interface OutgoingStatus {
  /** 0 = first pass over all RAM. */
  iteration?: number;
  /** Dirty pages: those that it knows of, and what must be expected to have become so since it looked. */
  remainingBytes?: number;
  dirtyPagesPerSecond?: number;
  /** The migration has stopped the guest, for the rest. */
  isStopped?: boolean;
  /** It has switched over to post-copy, and the guest stands still here. */
  isPostcopy?: boolean;
  /** The hypervisor's own figure, once it has one. */
  downtimeMs?: number;
}

/** How the hypervisor's side of an outgoing migration ended. Only after "completed" is the guest gone. */
export type OutgoingEnd = { outcome: "completed" } | { outcome: "failed" | "cancelled"; reason: string };

/** The hypervisor that gives a VM away. It keeps the guest until it has reported "completed". */
export interface OutgoingVm {
  /** For people: "QEMU 10.0.2". */
  readonly description: string;
  /** Of the stream's pages, where it does not say it itself. Absent: 4096. */
  readonly pageBytes?: number;
  /**
   * How the moment of switchover is chosen. "ack": the hypervisor iterates until SWITCHOVER_ACK comes on the
   * return path. "limit": it decides by itself, and `limitSwitchover` is all that can be done. "destination": which of
   * the two is not known before the destination's own SWITCHOVER_ACK comes, which says "ack".
   */
  readonly switchoverControl: "ack" | "limit" | "destination";
  /** The destination's own SWITCHOVER_ACK is to be waited for as well: it was asked for by the operator. */
  readonly awaitsDestinationAck: boolean;
  /** How long the guest stands still with nothing left to send, link and device state apart, if it knows that. */
  readonly standstillMsMin?: number;
  /**
   * Asks it to stop the guest only when, by its own count at that moment, at most so many bytes of dirty pages are
   * left. It may go by it with a delay, and stops with nothing left in any case.
   */
  limitSwitchover(remainingBytesMax: number): Promise<void>;
  /** Keeps the vCPUs from running for so many percent of their time; 0 takes it back. Absent: it cannot. */
  throttle?(percentage: number): Promise<void>;
  /**
   * Switches the running migration over to post-copy: the guest is stopped at once, and runs at the destination while
   * what is missing is fetched. Absent: it cannot, or was not told before `begin` that it may have to.
   */
  startPostcopy?(): Promise<void>;
  /** Starts the migration. The stream comes out of the channel; the return path goes into it. */
  begin(): Promise<Channel>;
  /**
   * Called before the destination can get everything and start by itself (direct mode): when this returns the
   * hypervisor will not resume the guest by itself any more, not even if this process dies. Absent where the
   * hypervisor dies with it.
   */
  committed?(): void;
  /**
   * Somebody else, e.g. libvirt, manages both hypervisors: the destination never lets the guest run by itself, and who
   * manages them lets it run there or here by how both say that the migration ended. Then the destination's verdict is
   * what gives the guest away, and nothing is committed before it is passed on: closing the connection takes all back.
   */
  readonly isManaged?: boolean;
  /** Resolves when it has handed over every page once: its status is worth a look then. Absent: it does not say. */
  readonly firstPassEnded?: Promise<void>;
  /** Resolves when the hypervisor calls the migration completed, failed or cancelled. Never rejects. */
  readonly ended: Promise<OutgoingEnd>;
  /**
   * Whether the guest runs, or ran until the migration stopped it; it stays paused at the destination if not.
   * Changes when somebody else pauses it or lets it run.
   */
  readonly wasRunning: boolean;
  status(): Promise<OutgoingStatus>;
  /** Gives up: the guest goes on here. Harmless when the migration is over. */
  cancel(): Promise<void>;
  /**
   * Its RAM, to be compared with what has arrived. Absent: it cannot be read.
   * @throws DeltaveeError VERIFY_UNAVAILABLE
   */
  openRam?(): Promise<StoppedRam>;
  /** Lets the guest run here again after "completed", because it was not committed. Never called otherwise. */
  resume(): Promise<void>;
  /** Whether the guest runs here now, asked of the hypervisor; undefined when it does not answer. */
  isRunning(): Promise<boolean | undefined>;
}

/** The hypervisor that takes a VM in. It never lets the guest run before `resume`. */
export interface IncomingVm {
  readonly description: string;
  /** Somebody else lets the guest run, or not: `resume` does nothing. See OutgoingVm. */
  readonly isManaged?: boolean;
  /**
   * Prepares for a migration. The stream goes into the channel; the return path comes out of it. `mayPostcopy`: part of
   * the guest's RAM may have to come after it has been let run; rejects where that cannot be. Again for another source,
   * as long as nobody has listened to a channel from before.
   */
  begin(mayPostcopy: boolean): Promise<Channel>;
  /**
   * Resolves when everything is loaded. The guest is paused, or has been let run when it was ready. Rejects when
   * loading fails.
   */
  loaded(): Promise<void>;
  /**
   * Post-copy: resolves when the guest could run, and is paused, with RAM still to come. May reject when `loaded` does.
   * Absent: no post-copy.
   */
  ready?(): Promise<void>;
  /** As at the source: of what is loaded, or is about to be. */
  openRam?(): Promise<StoppedRam>;
  /**
   * After `begin`, and before anything has been loaded. Absent: it cannot tell.
   * @throws DeltaveeError when it cannot be seen here
   */
  untouchedRam?(): Promise<UntouchedRam[]>;
  resume(): Promise<void>;
  /** The migration failed before it was committed: this copy of the guest must never run. */
  discard(): Promise<void>;
}
