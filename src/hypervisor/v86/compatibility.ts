// What source and destination must share for a v86 device state to mean the same on both: as one line of text,
// for the handshake and for the head of every device state. Knows nothing of how the two are exchanged.

import { DeltaveeError } from "../../base/errors.ts";

/** "name=value" fields, ";" between them. Equal on both sides or no migration. */
export type Compatibility = string;

export function describeCompatibility(fields: Readonly<Record<string, string | number>>): Compatibility {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${value}`)
    .join(";");
}

/** @throws DeltaveeError HYPERVISOR_INCOMPATIBLE, saying which fields differ and how. */
export function assertCompatible(here: Compatibility, peer: Compatibility): void {
  if (here === peer) return;
  const ours = parse(here);
  const theirs = parse(peer);
  const differences = [...new Set([...ours.keys(), ...theirs.keys()])]
    .filter((name) => ours.get(name) !== theirs.get(name))
    .map(
      (name) => `${name} is ${ours.get(name) ?? "unknown"} here and ${theirs.get(name) ?? "unknown"} there`,
    );
  throw new DeltaveeError(
    "HYPERVISOR_INCOMPATIBLE",
    `The two sides cannot run the same v86 VM: ${differences.join(", ") || "the peer's description is malformed"}`,
  );
}

function parse(compatibility: Compatibility): Map<string, string> {
  return new Map(
    compatibility.split(";").map((field): [string, string] => {
      const [name = "", ...value] = field.split("=");
      return [name, value.join("=")];
    }),
  );
}
