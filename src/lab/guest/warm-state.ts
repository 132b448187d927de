// Where every run of a scenario starts: a guest that has booted and been brought to a known state once, kept as its RAM
// in a file and its disk in an overlay, and loaded again in about a second.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../base/package-root.ts";
import { cachedFolder, cacheKey } from "../cache.ts";
import type { GuestImage } from "../image/image.ts";
import type { GuestShape, Scenario, ScenarioParameters } from "../model.ts";
import type { QemuBinary } from "../qemu-binaries.ts";
import { machineArguments } from "./guest-vm.ts";
import type { Accelerator } from "./qemu-process.ts";

export interface WarmState {
  /** The guest's RAM and devices, as a migration to a file has written them. */
  readonly state: string;
  /** Never written to again: QEMUs have overlays of it. */
  readonly disk: string;
}

export interface WarmStateOf {
  readonly scenario: Scenario;
  readonly parameters: ScenarioParameters;
  readonly shape: GuestShape;
  readonly image: GuestImage;
  readonly binary: QemuBinary;
  readonly accelerator: Accelerator;
}

/** From the cache, or by `make`, which leaves the two files at the paths that it is given. */
export async function warmState(of: WarmStateOf, make: (to: WarmState) => Promise<void>): Promise<WarmState> {
  const { scenario, shape, binary } = of;
  const shapeName = `${shape.memoryMiB}m${shape.vcpus}`;
  const name = `warm-${scenario.name}-${shapeName}-qemu${binary.name}-${warmKey(of)}`;
  const files = (folder: string) => ({ state: join(folder, "state"), disk: join(folder, "disk.qcow2") });
  return files(await cachedFolder(name, (folder) => make(files(folder))));
}

/** Changes with everything that the state was made from: the scenario's own code too. */
export function warmKey({ scenario, parameters, image, binary, accelerator, shape }: WarmStateOf): string {
  const { major, minor, micro } = binary.version;
  return cacheKey([
    ...[image.key, scenario.name, codeOf(scenario), `${major}.${minor}.${micro}`],
    ...scenario.warmParameters.map((name) => `${name}=${parameters[name]}`).sort(),
    ...machineArguments({ accelerator, image, shape }),
  ]);
}

/** Its whole module as it was compiled, where it is one of the lab's. */
function codeOf(scenario: Scenario): string {
  const path = join(PACKAGE_ROOT, "dist/lab/scenario", `${scenario.name}.js`);
  return existsSync(path) ? readFileSync(path, "utf8") : scenario.warmUp.toString();
}
