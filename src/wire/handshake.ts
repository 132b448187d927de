// The first two frames: the source offers (HELLO), the destination chooses (WELCOME) or refuses (REFUSE).
// Pure: knows no socket, and not whether the destination is busy. Format and meaning: PROTOCOL.md.

import type { ErrorCode } from "../base/errors.ts";
import { DeltaveeError, ProtocolError } from "../base/errors.ts";
import type { Hello, Welcome } from "./bodies.ts";
import { printable, REASON_CHARS_MAX } from "./bodies.ts";
import type { AbortFrame, HelloFrame, RefuseFrame, VersionRange, WelcomeFrame } from "./frame.ts";

export const PROTOCOL_VERSION = 6;
/** From this one on the destination can take the guest before it has all of its RAM. */
export const POSTCOPY_VERSION = 4;
/** From this one on RAM can be compared at both ends before the guest is given away. */
export const VERIFY_VERSION = 5;
/** From this one on the destination says whether it keeps up. */
export const PACE_VERSION = 6;
/** From this one on the source may send padding. */
export const PADDING_VERSION = 6;
/** What this program speaks. Versions 1 (the bare stream) and 2 (another checksum) were never released. */
export const PROTOCOL_VERSIONS: VersionRange = { min: 3, max: PROTOCOL_VERSION };

/** Codes that this program sends; a peer may send others. */
export type RefuseCode =
  /** Another migration is under way. */
  | "BUSY"
  /** No VM of this name is waited for. */
  | "NO_VM"
  /** The destination is shutting down. */
  | "STOPPING"
  /** There is no such migration to be resumed here, or no longer. */
  | "SESSION"
  | "VERSION"
  /** The certificate of the source, or what came instead of one, is not accepted. */
  | "CERTIFICATE"
  /** The source may not hand this VM over, or not on this connection. */
  | "UNAUTHORISED"
  /** Another kind of hypervisor, or one that cannot read the source's state. */
  | "HYPERVISOR"
  /** The RAM of the hypervisor here cannot be read, so that it cannot be compared. */
  | "VERIFY"
  /** No entropy codec in common. */
  | "CODEC"
  /** What came was not a HELLO that this side understands. */
  | "INVALID"
  | "INTERNAL";

export function helloFrame(body: Hello): HelloFrame {
  return { type: "hello", versions: PROTOCOL_VERSIONS, body };
}

export function refuseFrame(code: RefuseCode, message: string): RefuseFrame {
  return { type: "refuse", reason: { code, message: printable(message, REASON_CHARS_MAX) } };
}

export function abortFrame(code: ErrorCode, message: string): AbortFrame {
  return { type: "abort", reason: { code, message: printable(message, REASON_CHARS_MAX) } };
}

/** The highest version in both ranges, undefined when they do not overlap. */
export function negotiateVersion(a: VersionRange, b: VersionRange): number | undefined {
  const version = Math.min(a.max, b.max);
  return version >= Math.max(a.min, b.min) ? version : undefined;
}

/** The destination's answer to HELLO. `own.entropyCodecs`: all that the destination can decode. */
export function answerHello(
  hello: HelloFrame,
  own: Welcome,
  versions: VersionRange = PROTOCOL_VERSIONS,
): WelcomeFrame | RefuseFrame {
  const version = negotiateVersion(versions, hello.versions);
  if (version === undefined) {
    return refuseFrame(
      "VERSION",
      `source speaks protocol versions ${formatRange(hello.versions)}, ` +
        `destination ${formatRange(versions)} (Deltavee ${own.deltavee})`,
    );
  }
  const mismatch = hypervisorMismatch(hello.body, own);
  if (mismatch !== undefined) return refuseFrame("HYPERVISOR", mismatch);
  const entropyCodecs = hello.body.entropyCodecs.filter((id) => own.entropyCodecs.includes(id));
  if (entropyCodecs.length === 0) {
    return refuseFrame(
      "CODEC",
      `source offers entropy codecs ${hello.body.entropyCodecs.join(", ")}, ` +
        `destination knows ${own.entropyCodecs.join(", ")}`,
    );
  }
  const { deltavee, hypervisor, resumption } = own;
  const body: Welcome = { deltavee, entropyCodecs, hypervisor };
  if (resumption !== undefined) body.resumption = resumption;
  return { type: "welcome", version, body };
}

/** What is wrong with a WELCOME as an answer to this HELLO; undefined: nothing. */
export function welcomeMismatch(hello: HelloFrame, welcome: WelcomeFrame): string | undefined {
  if (welcome.version < hello.versions.min || welcome.version > hello.versions.max) {
    return `version ${welcome.version} was not offered (${formatRange(hello.versions)})`;
  }
  const foreign = welcome.body.entropyCodecs.find((id) => !hello.body.entropyCodecs.includes(id));
  if (foreign !== undefined) {
    return `entropy codec ${foreign} was not offered (${hello.body.entropyCodecs.join(", ")})`;
  }
  return hypervisorMismatch(hello.body, welcome.body);
}

/** Refused for who the source is. */
const NOT_AUTHORISED: ReadonlySet<string> = new Set<RefuseCode>(["CERTIFICATE", "UNAUTHORISED"]);

/** The error with which the source reports a REFUSE. */
export function refusalError(frame: RefuseFrame): DeltaveeError {
  const { code, message } = frame.reason;
  const text = `Destination refused the migration (${code}): ${message}`;
  if (code === "HYPERVISOR") return new DeltaveeError("HYPERVISOR_INCOMPATIBLE", text);
  if (code === "VERIFY") return new DeltaveeError("VERIFY_UNAVAILABLE", text);
  if (NOT_AUTHORISED.has(code)) return new DeltaveeError("NOT_AUTHORISED", text);
  return new ProtocolError(code === "VERSION" ? "PROTOCOL_VERSION" : "PROTOCOL_REFUSED", text);
}

/** The REFUSE with which the destination answers whatever went wrong before WELCOME. */
export function refusalFor(error: Error): RefuseFrame {
  if (error instanceof ProtocolError) return refuseFrame("INVALID", error.message);
  const isVerify = error instanceof DeltaveeError && error.code === "VERIFY_UNAVAILABLE";
  return refuseFrame(isVerify ? "VERIFY" : "INTERNAL", error.message);
}

function hypervisorMismatch(source: Pick<Hello, "hypervisor">, destination: Welcome): string | undefined {
  const ours = source.hypervisor;
  const theirs = destination.hypervisor;
  if (ours.kind !== theirs.kind) {
    return `source hypervisor is ${ours.kind} ${ours.version}, destination's ${theirs.kind} ${theirs.version}`;
  }
  if (ours.compatibility !== theirs.compatibility) {
    return (
      `${ours.kind} at the source ("${ours.compatibility ?? ""}") and ` +
      `at the destination ("${theirs.compatibility ?? ""}") are not compatible`
    );
  }
  return undefined;
}

function formatRange({ min, max }: VersionRange): string {
  return min === max ? `${min}` : `${min} to ${max}`;
}
