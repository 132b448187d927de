// What is said of a comparison of RAM at both ends, in one line.

import { formatBytes, formatMs } from "../base/units.ts";
import type { RecordEvent } from "../record/schema.ts";

type Verified = Extract<RecordEvent, { type: "verified" }>;

export function verifiedText({ comparedBytes, leftOut, verifyMs }: Verified): string {
  const rest = leftOut.length === 0 ? "" : `; not compared: ${leftOut.join(", ")}`;
  return (
    `RAM is equal at both ends: ${formatBytes(comparedBytes)} compared, for which the guest stood still ` +
    `${formatMs(verifyMs)}${rest}`
  );
}
