// Results put in order: runs that repeat each other are a group, groups that differ in nothing but the method are a
// contest. Only within a contest are methods compared.

import { formatBytesPerSecond } from "../../base/units.ts";
import { type Spread, spreadOf } from "../../report/statistics.ts";
import { METHODS } from "../method/all.ts";
import type { Setting } from "../model.ts";
import { type RunResult, settingKey } from "./results.ts";

/** Repetitions of one setting. */
export interface Group {
  readonly method: string;
  readonly runs: readonly RunResult[];
}

/** Methods on the same work over the same link. */
export interface Contest {
  readonly experiment: string;
  /** Of all its runs, but for method and run. */
  readonly setting: Omit<Setting, "method" | "run">;
  /** QEMU's own methods first, then ours. */
  readonly groups: readonly Group[];
}

export const STANDARD = "vanilla";
/** Also with settings of their own, as "tunnel-xbrle". */
const OURS = /^(direct|tunnel)(-|$)/;

export function isOurs(method: string): boolean {
  return OURS.test(method);
}

export function contestsOf(results: readonly RunResult[]): Contest[] {
  const byContest = groupBy(results, ({ experiment, setting }) =>
    JSON.stringify([experiment, settingKey({ ...setting, method: "" })]),
  );
  const contests = [...byContest.values()].map((runs): Contest => {
    const { experiment, setting } = runs[0]!;
    const { method: _, run: __, ...shared } = setting;
    const groups = [...groupBy(runs, (result) => result.setting.method)].map(([method, members]) => ({
      method,
      runs: members.toSorted((a, b) => a.setting.run - b.setting.run),
    }));
    return { experiment, setting: shared, groups: groups.sort((a, b) => byMethod(a.method, b.method)) };
  });
  return contests.sort(byContestOrder);
}

/** In the order in which keys first appear. (Node 20 has no `Map.groupBy`.) */
export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

/** As the lab has them; others come after them, by name. */
export function byMethod(a: string, b: string): number {
  const [rankA, rankB] = [a, b].map((method) => {
    const index = METHODS.findIndex(({ name }) => name === method);
    return index < 0 ? METHODS.length : index;
  });
  return rankA! - rankB! || (a < b ? -1 : a > b ? 1 : 0);
}

function byContestOrder(a: Contest, b: Contest): number {
  const [first, second] = [a, b].map(({ setting: { scenario, link, guest, qemu }, experiment }) => [
    scenario,
    experiment,
    link.bytesPerSecond,
    link.roundTripMs,
    link.lossShare,
    // CUBIC, which is not said, before BBR.
    link.congestion ?? "",
    guest.memoryMiB,
    qemu,
  ]);
  for (const [index, value] of first!.entries()) {
    const other = second![index]!;
    if (value !== other) return value < other ? -1 : 1;
  }
  const [keyA, keyB] = [a, b].map(({ setting }) => JSON.stringify(setting));
  return keyA! < keyB! ? -1 : keyA! > keyB! ? 1 : 0;
}

/** "100.0 Mbit/s, round trip 20 ms, no loss; guest of 1 GiB, 1 vCPU; QEMU 10.0; bytesPerPage 64" */
export function settingText({ link, guest, qemu, parameters }: Contest["setting"]): string {
  const named = Object.entries(parameters).map(([name, value]) => `${name} ${value}`);
  return [
    linkText(link),
    guestText(guest),
    `QEMU ${qemu}`,
    ...(named.length === 0 ? [] : [named.join(", ")]),
  ].join("; ");
}

export function linkText({ bytesPerSecond, roundTripMs, lossShare, congestion }: Setting["link"]): string {
  const loss = lossShare === 0 ? "no loss" : `${Number((lossShare * 100).toPrecision(3))} % loss`;
  return `${formatBytesPerSecond(bytesPerSecond)}, round trip ${Number(roundTripMs.toPrecision(4))} ms, ${loss}${congestion === "bbr" ? ", BBR" : ""}`;
}

function guestText({ memoryMiB, vcpus }: Setting["guest"]): string {
  const memory =
    memoryMiB >= 1024 ? `${Number((memoryMiB / 1024).toPrecision(3))} GiB` : `${Math.round(memoryMiB)} MiB`;
  return `guest of ${memory}, ${vcpus} vCPU${vcpus === 1 ? "" : "s"}`;
}

/** Over the runs in which it was measured. */
export function spreadOfMetric(group: Group | undefined, name: string): Spread | undefined {
  return spreadOf((group?.runs ?? []).flatMap(({ metrics }) => metrics.get(name) ?? []));
}

/** Every run came to an end by itself and nobody lost anything: only then do its figures compete. */
export function isClean({ runs }: Group): boolean {
  return runs.every(({ succeeded, forced }) => succeeded && !forced);
}

export function groupOf({ groups }: Contest, method: string): Group | undefined {
  return groups.find((group) => group.method === method);
}
