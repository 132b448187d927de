// A broken or resumed connection in words, the same in the terminal and on the HTML page.

import { formatBytes, formatMs } from "../base/units.ts";
import type { RecordEvent } from "../record/schema.ts";

/** "lost: ..." or "resumed after 30.1 s, 1.2 MB sent again" */
export function linkEventText(event: Extract<RecordEvent, { type: "link" }>): string {
  const { state, reason, outageMs, resentBytes } = event;
  if (state === "lost") return reason === undefined ? "lost" : `lost: ${reason}`;
  const after = outageMs === undefined ? "" : ` after ${formatMs(outageMs)}`;
  return `resumed${after}${resentBytes === undefined ? "" : `, ${formatBytes(resentBytes)} sent again`}`;
}
