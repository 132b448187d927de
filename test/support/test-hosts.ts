// Whether test hosts can be made on this machine. Containers that may not make network namespaces are common, also for
// root; tests that need some are then left out, which is said.

import { toError } from "../../src/base/errors.ts";
import { openHosts } from "../../src/lab/hosts/hosts.ts";

let answer: Promise<string | undefined> | undefined;

/** Undefined: they can. Otherwise why not, printed as well. */
export function whyNoTestHosts(): Promise<string | undefined> {
  answer ??= tryThem();
  return answer;
}

async function tryThem(): Promise<string | undefined> {
  try {
    const hosts = await openHosts({ bytesPerSecond: 12.5e6, roundTripMs: 0, lossShare: 0 });
    await hosts.remove();
    return undefined;
  } catch (thrown) {
    const why = toError(thrown).message;
    console.warn(`Tests with test hosts are left out: ${why}`);
    return why;
  }
}
