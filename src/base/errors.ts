// Every error that Deltavee reports to a person: a stable code, what was attempted, and where the VM is.
// Assertions (assert.ts) are for our own bugs; these are for bad input, dead peers and refused commands.
// docs/errors.md lists every code with what it means and what to do; a test holds the two together.

/** Where the guest is, as far as this side can tell: the first question an operator asks after a failure. */
export type VmWhere =
  | "running on source"
  | "paused on source"
  | "running on destination"
  | "paused on destination"
  /** Moved for good. Whether it runs there is the destination's to say: it may have been told to leave it paused. */
  | "with the destination"
  | "unknown";

export type ErrorCode =
  | "USAGE"
  | "CONFIG_INVALID"
  | "SERVICE_UNREACHABLE"
  | "SERVICE_STOPPING"
  | "SERVICE_BUSY"
  | "LINK_FAILED"
  | "LINK_CLOSED"
  | "LINK_TIMEOUT"
  | "LINK_LOST"
  | "TLS_FILES_INVALID"
  | "TLS_PEER_REJECTED"
  | "TLS_FAILED"
  | "NOT_AUTHORISED"
  | "PROTOCOL_INVALID_FRAME"
  | "PROTOCOL_VERSION"
  | "PROTOCOL_REFUSED"
  | "STREAM_CORRUPT"
  | "XBZRLE_CORRUPT"
  | "QMP_COMMAND_REFUSED"
  | "QMP_INTERRUPTED"
  | "QMP_UNAVAILABLE"
  | "SOCKET_REPLACED"
  | "HYPERVISOR_FAILED"
  | "HYPERVISOR_INCOMPATIBLE"
  | "MIGRATION_FAILED"
  | "MAX_TIME_REACHED"
  | "MAX_BYTES_REACHED"
  | "NOT_CONVERGING"
  | "DOWNTIME_UNREACHABLE"
  | "RECOVERY_REFUSED"
  | "DECISION_NEEDED"
  | "RECORD_INVALID"
  | "TRACE_INVALID"
  | "OUT_OF_MEMORY"
  | "CANCELLED"
  | "POSTCOPY_INTERRUPTED"
  | "MEMORY_DIFFERS"
  | "VERIFY_UNAVAILABLE"
  | "INTERNAL";

export interface ErrorDetails {
  cause?: unknown;
  /** Phase of the migration in which it happened, where one had begun. */
  phase?: string;
  vm?: VmWhere;
}

/** Base of all of them. `message` says what was attempted, with values; it never repeats `cause`. */
export class DeltaveeError extends Error {
  readonly code: ErrorCode;
  /** This and the next: filled in by whoever knows; an error from a parser does not. */
  phase: string | undefined;
  vm: VmWhere | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.phase = details.phase;
    this.vm = details.vm;
  }
}

/** A flag, size or address that makes no sense. Exit code 2. */
export class UsageError extends DeltaveeError {
  constructor(message: string, details?: ErrorDetails) {
    super("USAGE", message, details);
  }
}

/** A connection could not be made, broke, or fell silent. */
export class LinkError extends DeltaveeError {
  constructor(
    code: "LINK_FAILED" | "LINK_CLOSED" | "LINK_TIMEOUT" | "LINK_LOST",
    message: string,
    details?: ErrorDetails,
  ) {
    super(code, message, details);
  }
}

/** Keys and certificates of ours that cannot be used, a peer that is not who it should be, or no TLS at all. */
export class TlsError extends DeltaveeError {
  constructor(
    code: "TLS_FILES_INVALID" | "TLS_PEER_REJECTED" | "TLS_FAILED",
    message: string,
    details?: ErrorDetails,
  ) {
    super(code, message, details);
  }
}

/** The peer at the other end of the tunnel broke PROTOCOL.md or refused us. */
export class ProtocolError extends DeltaveeError {
  constructor(
    code: "PROTOCOL_INVALID_FRAME" | "PROTOCOL_VERSION" | "PROTOCOL_REFUSED",
    message: string,
    details?: ErrorDetails,
  ) {
    super(code, message, details);
  }
}

/** The migration stream of the hypervisor is not what stream/FORMAT.md describes. */
export class QemuStreamError extends DeltaveeError {
  /** Offset in the stream of the record that could not be understood. */
  readonly offsetBytes: number;
  /** Part of the stream: "header", "configuration", "ram", ... */
  readonly section: string;

  constructor(message: string, offsetBytes: number, section: string, details?: ErrorDetails) {
    super("STREAM_CORRUPT", `${message} (section ${section}, offset ${offsetBytes})`, details);
    this.offsetBytes = offsetBytes;
    this.section = section;
  }
}

/** QEMU received the command and refused it: the outcome is known. */
export class QmpCommandError extends DeltaveeError {
  readonly command: string;
  /** QMP error class, e.g. "GenericError", "CommandNotFound". */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string, details?: ErrorDetails) {
    super("QMP_COMMAND_REFUSED", `QEMU refused ${command}: ${description} (${errorClass})`, details);
    this.command = command;
    this.errorClass = errorClass;
  }
}

/** The connection ended or timed out while a command was under way: whether QEMU ran it is unknown. */
export class QmpInterruptedError extends DeltaveeError {
  readonly command: string;

  constructor(command: string, reason: string, details?: ErrorDetails) {
    super("QMP_INTERRUPTED", `Outcome of ${command} is unknown: ${reason}`, details);
    this.command = command;
  }
}

/** What has arrived is not what the source has (`--verify`). Never tried again by itself. */
export class IntegrityError extends DeltaveeError {
  /** Name of the RAMBlock, and the first page in it that differs. */
  readonly block: string;
  readonly pageIndex: number;

  constructor(message: string, block: string, pageIndex: number, details?: ErrorDetails) {
    super("MEMORY_DIFFERS", message, details);
    this.block = block;
    this.pageIndex = pageIndex;
  }
}

/** The operator asked to stop. */
export class CancelledError extends DeltaveeError {
  constructor(message: string, details?: ErrorDetails) {
    super("CANCELLED", message, details);
  }
}

/** A promise could not be kept, so that the migration was given up in good order: the guest goes on at the source. */
const GIVEN_UP: ReadonlySet<ErrorCode> = new Set([
  "MAX_TIME_REACHED",
  "MAX_BYTES_REACHED",
  "NOT_CONVERGING",
  "DOWNTIME_UNREACHABLE",
]);

export function isGivenUp({ code }: DeltaveeError): boolean {
  return GIVEN_UP.has(code);
}

/** Any thrown value as an Error: what catch blocks pass on. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
