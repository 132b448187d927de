// The way of the hypervisor's stream through the source engine, put together:
//
//   channel → StreamIntake → StreamReader → StreamRewriter → sink → link      direct: StreamSink, DirectLink
//                                                                             tunnel: BatchSink, TunnelLink
//
// What is seen on the way is told to a listener; what follows from it is decided there (source.ts).

import { formatBytes } from "../../base/units.ts";
import type { DeltaCodecId } from "../../codec/delta/delta-codec.ts";
import { makeDeltaCodec } from "../../codec/delta/delta-codecs.ts";
import type { PageCache } from "../../memory/page-cache.ts";
import { StreamReader } from "../../stream/reader.ts";
import { BypassJudge } from "../intake/bypass.ts";
import { StreamIntake } from "../intake/stream-intake.ts";
import { BatchSink, type PageCoding } from "../pages/batch-sink.ts";
import { ContentWindow } from "../pages/content-window.ts";
import type { PageSink } from "../pages/page-sink.ts";
import { type RewriterListener, StreamRewriter } from "../pages/rewriter.ts";
import { StreamSink } from "../pages/stream-sink.ts";
import { DirectLink } from "../transport/direct-link.ts";
import type { SourceLink } from "../transport/source-link.ts";
import { TunnelLink, type TunnelLinkListener } from "../transport/tunnel-link.ts";
import type { SourceOptions } from "./options.ts";

/** Whole pages sent last, to which an equal page is a reference: the destination keeps them. */
const WINDOW_BYTES = 32 * 1024 * 1024;

export interface SourcePipelineListener
  extends Required<Omit<RewriterListener, "packageEnd">>,
    Omit<TunnelLinkListener, "room" | "decision"> {
  /** The guest runs, and so many passes over its RAM are over; undefined: it has stopped. */
  pass(): number | undefined;
  /** The stream cannot be read, or not be put into the link. `failed` is of the link. */
  broken(error: Error): void;
}

export class SourcePipeline {
  readonly intake: StreamIntake;
  readonly reader: StreamReader;
  readonly rewriter: StreamRewriter;
  readonly link: SourceLink;
  /** The link by its mode: one of the two. */
  readonly direct: DirectLink | undefined;
  readonly tunnel: TunnelLink | undefined;

  constructor(options: SourceOptions, listener: SourcePipelineListener) {
    const { memory, kernel, cacheFactory, clock, defer } = options;
    const decision = (choice: string, reason: string) =>
      options.record.add({ type: "decision", subject: "method", choice, reason });
    const heard: TunnelLinkListener = {
      returnPath: (bytes) => listener.returnPath(bytes),
      room: () => this.intake.pump(),
      ended: () => listener.ended(),
      failed: (error) => listener.failed(error),
      welcome: (frame) => {
        // In post-copy the hypervisor waits for each page that it was not sent.
        const untouched = options.tunnel?.hello.postcopy === true ? [] : (frame.body.untouchedRam ?? []);
        const bytes = untouched
          .flatMap(({ ranges }) => ranges)
          .reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
        if (bytes > 0) {
          this.rewriter.leaveOutZerosOf(untouched);
          decision("leave out zeros", `the destination has never touched ${formatBytes(bytes)} of its RAM`);
        }
        listener.welcome(frame);
      },
      lost: (error) => listener.lost(error),
      resumed: (outage) => listener.resumed(outage),
      ready: () => listener.ready(),
      loaded: () => listener.loaded(),
      digests: (digests) => listener.digests(digests),
      running: () => listener.running(),
      decision,
    };
    let sink: PageSink;
    if (options.tunnel === undefined) {
      const streamSink = new StreamSink(memory, kernel);
      this.direct = new DirectLink(options.channel, clock, streamSink, heard);
      this.link = this.direct;
      sink = streamSink;
    } else {
      const { coder, deltaCodec, reconnect } = options.tunnel;
      const batchSink = new BatchSink(memory, kernel, coder, (_blocks, pageBytes) =>
        pageCoding(options, deltaCodec, pageBytes, this.rewriter.cache),
      );
      const { channel } = options;
      const parts = { channel, clock, sink: batchSink, coder, memory, kernel, reconnect };
      this.tunnel = new TunnelLink({ ...parts, listener: heard });
      this.link = this.tunnel;
      sink = batchSink;
    }
    this.rewriter = new StreamRewriter({
      ...{ sink, memory, kernel, cacheFactory },
      listener: {
        command: (command) => listener.command(command),
        ramBlocks: (blocks) => listener.ramBlocks(blocks),
        stopped: () => listener.stopped(),
        package: () => listener.package(),
        packageEnd: () => {
          this.direct?.beginPostcopy();
          this.tunnel?.beginPostcopy();
        },
        deviceState: () => listener.deviceState(),
        opaque: (reason, offsetBytes) => listener.opaque(reason, offsetBytes),
      },
      observer: options.observer,
    });
    this.reader = new StreamReader(this.rewriter, options.vm.pageBytes);
    this.intake = new StreamIntake({
      ...{ memory, clock, defer, reader: this.reader, link: this.link },
      // Method `standard` does not look at pages anyway.
      bypassJudge: cacheFactory === undefined ? undefined : new BypassJudge(decision, options.idleCoreMs),
      bypass: (wanted) => {
        this.rewriter.bypass(wanted);
        this.link.bypass(wanted);
      },
      pass: () => listener.pass(),
      failed: (error) => listener.broken(error),
    });
  }
}

/** What the destination is told of how pages are coded, and what codes them. Method `standard` has neither. */
function pageCoding(
  { memory, kernel }: SourceOptions,
  deltaCodec: DeltaCodecId,
  pageBytes: number,
  cache: PageCache | undefined,
): PageCoding {
  if (cache === undefined) return { delta: undefined, window: undefined, windowPages: 0, baselinePages: 0 };
  const windowPages = WINDOW_BYTES / pageBytes;
  return {
    delta: makeDeltaCodec(deltaCodec, memory, kernel, pageBytes),
    window: new ContentWindow(kernel, cache, pageBytes, windowPages),
    windowPages,
    baselinePages: cache.slotCount,
  };
}
