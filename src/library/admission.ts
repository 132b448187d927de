// Who may hand over which VM (`deltavee receive --allow`), and that what is said belongs to the connection on which it
// is said. Pure: judges what has been proved and claimed elsewhere.

import { UsageError } from "../base/errors.ts";
import type { Caller, Refusal } from "../link/lobby.ts";
import type { Peer } from "../link/tls/secure.ts";

/** Everybody whose certificate is accepted. */
const ANYBODY = "*";
const FINGERPRINT = /^sha256:([0-9a-f]{64})$/;

export interface AllowRule {
  /** A name in the certificate, sha256:FINGERPRINT, or "*". */
  readonly peer: string;
  /** Name or UUID. Undefined: any VM. */
  readonly vm: string | undefined;
}

/** Collects what `--allow` says, each time that it is given. @throws UsageError */
export function parseAllow(text: string, before: readonly AllowRule[] = []): AllowRule[] {
  const at = text.indexOf("=");
  const peer = (at === -1 ? text : text.slice(0, at)).trim();
  const vm = at === -1 ? undefined : text.slice(at + 1).trim();
  if (peer === "" || vm === "") throw new UsageError(`Not a rule: "${text}" (PEER or PEER=VM)`);
  const isFingerprint = peer.toLowerCase().startsWith("sha256:");
  const spelled = isFingerprint ? `sha256:${peer.slice("sha256:".length).replaceAll(":", "")}` : peer;
  const normal = isFingerprint ? spelled.toLowerCase() : spelled;
  if (isFingerprint && !FINGERPRINT.test(normal)) {
    throw new UsageError(`Not a fingerprint: "${peer}" (sha256: and 64 hexadecimal digits)`);
  }
  return [...before, { peer: normal, vm }];
}

/** @throws UsageError for rules that nobody could ever meet */
export function checkRules(rules: readonly AllowRule[], isSecure: boolean): void {
  const needsName = rules.find(({ peer }) => peer !== ANYBODY);
  if (!isSecure && needsName !== undefined) {
    throw new UsageError(
      `--allow ${needsName.peer}: without TLS nobody proves who he is ('*=VM' is possible)`,
    );
  }
}

/** Why the source may not come in; undefined: it may. `current`: whose migration is under way. */
export function refusalOf(
  { frame, secure }: Omit<Caller, "channel">,
  rules: readonly AllowRule[],
  current: { readonly peer: Peer | undefined } | undefined,
): Refusal | undefined {
  if (frame.type === "resume") {
    if (current === undefined) return { code: "SESSION", message: "no migration is under way here" };
    if (secure?.peer.fingerprint === current.peer?.fingerprint) return undefined;
    return unauthorised("the migration was begun by somebody else");
  }
  const { session, name, uuid } = frame.body;
  // What was said to somebody else, or at another time, is not taken for what is said here.
  if (secure !== undefined && session !== secure.binding) {
    return unauthorised("the session is not that of this connection");
  }
  if (rules.length === 0) return undefined;
  const known = rules.filter((rule) => meets(rule, secure?.peer));
  const who = secure === undefined ? "a source" : `"${secure.peer.title}"`;
  if (known.length === 0) return unauthorised(`${who} may hand nothing over here`);
  const mayHandOver = known.some(({ vm }) => vm === undefined || vm === name || isSameUuid(vm, uuid));
  return mayHandOver
    ? undefined
    : unauthorised(`${who} may not hand over this VM (${name ?? uuid ?? "it has no name"})`);
}

function meets({ peer: wanted }: AllowRule, peer: Peer | undefined): boolean {
  if (wanted === ANYBODY) return true;
  const fingerprint = FINGERPRINT.exec(wanted)?.[1];
  return fingerprint === undefined ? peer?.isNamed(wanted) === true : peer?.fingerprint === fingerprint;
}

function isSameUuid(wanted: string, uuid: string | undefined): boolean {
  return uuid !== undefined && wanted.toLowerCase() === uuid.toLowerCase();
}

function unauthorised(message: string): Refusal {
  return { code: "UNAUTHORISED", message };
}
