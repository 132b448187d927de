// One run as it is planned: its setting and how it is ended; and the name of its record, which is what a run is found
// again by. Everything of the setting is in the name, so that two runs of an experiment never share one.

import type { LabLink, Scenario, ScenarioParameters, Setting } from "../model.ts";

export interface RunPlan {
  /** Folder of its record. */
  readonly experiment: string;
  readonly scenario: Scenario;
  readonly setting: Setting;
  readonly downtimeMsMax: number;
  /** Any downtime is allowed to a method that has not converged by then. */
  readonly forceAfterMs: number;
  /** What has not ended by then is cancelled. */
  readonly limitMs: number;
  /** How long the guest is watched before and after it is moved. */
  readonly beforeMs: number;
  readonly afterMs: number;
}

/** "video-tunnel-100mbit-rtt20-10.0-bytesPerPage=64-1.ndjson". */
export function recordName({ setting, scenario }: RunPlan): string {
  const parts = [
    ...[setting.scenario, setting.method, linkName(setting.link), setting.qemu],
    ...[parametersName(setting, scenario), `${setting.run}`],
  ];
  return `${parts.join("-")}.ndjson`;
}

/** "100mbit-rtt20-loss0.1-bbr": Mbit/s, ms, percent. What a link does not have is left out, and so is CUBIC. */
export function linkName({ bytesPerSecond, roundTripMs, lossShare, congestion = "cubic" }: LabLink): string {
  const parts = [`${rounded((bytesPerSecond * 8) / 1e6)}mbit`];
  if (roundTripMs > 0) parts.push(`rtt${rounded(roundTripMs)}`);
  if (lossShare > 0) parts.push(`loss${rounded(lossShare * 100)}`);
  if (congestion !== "cubic") parts.push(congestion);
  return parts.join("-");
}

/** What differs from the scenario's own, its guest included: "bytesPerPage=64,memoryMiB=512", or "default". */
function parametersName({ parameters, guest }: Setting, scenario: Scenario): string {
  const own: ScenarioParameters = { ...scenario.parameters, ...scenario.guest };
  const used: ScenarioParameters = { ...parameters, ...guest };
  const different = Object.entries(used).filter(([name, value]) => own[name] !== value);
  const text = different.map(([name, value]) => `${name}=${safe(value)}`).join(",");
  return text === "" ? "default" : text;
}

/** A word of a parameter may hold anything; a name of a file may not. */
function safe(value: number | string): string {
  return `${value}`.replaceAll(/[^\w.]/g, "_");
}

/** Without the traces of binary fractions. */
function rounded(value: number): number {
  return Number(value.toPrecision(6));
}

/** "video, tunnel, 100mbit-rtt20, QEMU 10.0, run 1", for people. */
export function planText({ setting, scenario }: RunPlan): string {
  const parameters = parametersName(setting, scenario);
  return [
    ...[setting.scenario, ...(parameters === "default" ? [] : [parameters])],
    ...[setting.method, linkName(setting.link), `QEMU ${setting.qemu}`, `run ${setting.run}`],
  ].join(", ");
}
