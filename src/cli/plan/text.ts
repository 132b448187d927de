// A plan as people read it: what was seen of the guest, a table method by method, and what to do. Intervals are shown
// where they say more than the number alone.

import { formatBytes, formatBytesPerSecond, formatMs } from "../../base/units.ts";
import type { FleetOrder, FleetOutcome } from "../../planner/fleet.ts";
import {
  type Interval,
  type MethodForecast,
  type Plan,
  precopyRoomPagesPerSecond,
} from "../../planner/forecast.ts";
import { dirtyPagesPerSecond, type GuestModel, meanDeltaSize } from "../../planner/guest-model.ts";
import type { LinkModel } from "../../planner/link-model.ts";
import { columns, formatCount, formatRatio } from "../../report/text.ts";

/** Closer than this the ends of an interval are one number to a reader. */
const NARROW_RATIO = 1.1;
/** Members of a fleet that are shown one by one. */
const MEMBERS_MAX = 10;

export function planText(guest: GuestModel, link: LinkModel, plan: Plan): string {
  return [
    ...guestLines(guest),
    linkLine(link),
    "",
    ...columns([TABLE_HEAD, ...plan.forecasts.map(tableRow)], true),
    "",
    plan.recommended === undefined
      ? `None: ${plan.reason}.`
      : `Recommended: ${plan.recommended}. ${capital(plan.reason)}.`,
    ...(guest.rewrittenIsKnown === false ? uncountedLines(guest, link) : []),
    "",
  ].join("\n");
}

function guestLines(guest: GuestModel): string[] {
  const bytes = (pages: number) => formatBytes(pages * guest.pageBytes);
  const changing = guest.rateClasses.reduce(
    (sum, { pages, changesPerSecond }) => sum + (changesPerSecond >= 1 ? pages : 0),
    0,
  );
  const rows = [
    ["guest RAM", `${bytes(guest.pages)}, ${formatRatio(guest.zeroPages / guest.pages)} of it zero`],
    [
      "changes",
      `${formatCount(dirtyPagesPerSecond(guest))} pages/s (${bytes(dirtyPagesPerSecond(guest))}/s); ` +
        `${bytes(changing)} change every second or more often`,
    ],
  ];
  if (guest.rewrittenIsKnown === false) rows.push(["rewritten alike", "not counted here (see below)"]);
  else if (guest.rewrittenPagesPerSecond > 0)
    rows.push(["rewritten alike", `${formatCount(guest.rewrittenPagesPerSecond)} pages/s`]);
  const size = meanDeltaSize(guest, 1000);
  if (size !== undefined) {
    rows.push([
      "a page's change",
      `${formatBytes(size.xbzrleBytes)} as XBZRLE, ${formatBytes(size.tunnelBytes)} in the tunnel`,
    ]);
  }
  const { fast, strong } = guest.codedShare;
  rows.push(["compressible", `to ${formatRatio(fast)} fast, ${formatRatio(strong)} with more effort`]);
  if (guest.sampledPages > 0)
    rows.push(["seen", `${formatCount(guest.sampledPages)} pages, for ${formatMs(guest.sampledMs)}`]);
  return columns(rows, false);
}

/** What the table does not know, for whom it matters, and how to see it there. */
function uncountedLines(guest: GuestModel, link: LinkModel): string[] {
  // No more exact than what it is derived from.
  const room = Number(precopyRoomPagesPerSecond(guest, link).toPrecision(2));
  const bears =
    room === 0
      ? "Pre-copy does not keep up even without them."
      : `Pre-copy bears about ${formatCount(room)} such pages/s over this link.`;
  return [
    "",
    "Not counted: pages that are written with what they hold already (QEMU counts them under KVM only). Pre-copy sends",
    "them whole each time, XBZRLE until it has kept them, the tunnel and direct mode next to nothing for them.",
    `${bears} --rewritten COUNT shows what so many a second would change.`,
  ];
}

function linkLine({ bytesPerSecond, roundTripMs, lossShare }: LinkModel): string {
  const loss = lossShare === 0 ? "" : `, ${formatRatio(lossShare)} of packets lost`;
  return `link: ${formatBytesPerSecond(bytesPerSecond)}, round trip ${formatMs(roundTripMs)}${loss}`;
}

const TABLE_HEAD = ["method", "converges", "total time", "downtime", "on the wire", "CPU", "iterations"];

function tableRow(forecast: MethodForecast): string[] {
  const { title, converges, totalMs, downtimeMs, wireBytes, cpuMs, iterations } = forecast;
  const never = converges === "no";
  return [
    title,
    converges,
    never ? "never" : intervalText(totalMs, formatMs),
    never ? `${intervalText(downtimeMs, formatMs)} if forced` : intervalText(downtimeMs, formatMs),
    never ? "-" : intervalText(wireBytes, formatBytes),
    intervalText(cpuMs, formatMs),
    never ? "-" : formatCount(iterations),
  ];
}

function intervalText({ low, expected, high }: Interval, format: (value: number) => string): string {
  if (high <= low * NARROW_RATIO) return format(expected);
  return `${format(expected)} (${format(low)} to ${format(high)})`;
}

export function fleetText(
  plans: readonly { order: FleetOrder; concurrent: number; outcome: FleetOutcome }[],
): string {
  const rows = plans.map(({ order, concurrent, outcome }) => [
    order,
    String(concurrent),
    formatMs(outcome.totalMs),
    formatBytes(outcome.members.reduce((sum, { outcome: { wireBytes } }) => sum + wireBytes, 0)),
    String(outcome.members.filter((member) => !member.outcome.converges).length),
  ]);
  const lines = columns(
    [["order", "at a time", "all gone after", "on the wire", "not converging"], ...rows],
    true,
  );
  const failing = plans[0]?.outcome.members.filter(({ outcome }) => !outcome.converges) ?? [];
  if (failing.length === 0) return `${lines.join("\n")}\n`;
  const names = failing.slice(0, MEMBERS_MAX).map(({ name }) => name);
  const more = failing.length > MEMBERS_MAX ? `, and ${failing.length - MEMBERS_MAX} more` : "";
  return `${lines.join("\n")}\n\nNot converging in the first of these: ${names.join(", ")}${more}\n`;
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
