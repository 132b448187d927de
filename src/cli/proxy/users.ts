// Which users of this host may hand the proxy a migration over TCP: whoever manages QEMU (libvirtd, as root or as the
// proxy's own user), and those that are named. Names are those of /etc/passwd.

import { readFileSync } from "node:fs";
import { toError, UsageError } from "../../base/errors.ts";

/** A user's id, or everybody. */
export type UserRule = number | "*";

const ROOT_UID = 0;
const UID_MAX = 2 ** 32 - 2;

/** For commander: one more of them. @throws UsageError */
export function parseUser(text: string, before: readonly UserRule[]): UserRule[] {
  return [...before, text === "*" ? "*" : uidOf(text, readPasswd)];
}

/** Undefined: everybody. */
export function allowedUids(rules: readonly UserRule[]): readonly number[] | undefined {
  const named = rules.filter((rule) => rule !== "*");
  if (named.length < rules.length) return undefined;
  const own = process.geteuid?.();
  return [ROOT_UID, ...(own === undefined ? [] : [own]), ...named];
}

/** `passwd`: the text of the file. @throws UsageError */
export function uidOf(text: string, passwd: () => string): number {
  if (/^\d+$/.test(text)) {
    const uid = Number(text);
    if (uid <= UID_MAX) return uid;
  } else {
    const fields = passwd()
      .split("\n")
      .map((line) => line.split(":"))
      .find(([name]) => name === text);
    if (fields?.[2] !== undefined && /^\d+$/.test(fields[2])) return Number(fields[2]);
  }
  throw new UsageError(`There is no user "${text}" in /etc/passwd: give a name of that file, or an id`);
}

function readPasswd(): string {
  try {
    return readFileSync("/etc/passwd", "utf8");
  } catch (cause) {
    throw new UsageError(`Cannot read /etc/passwd (${toError(cause).message}): give the user's id`, {
      cause,
    });
  }
}
