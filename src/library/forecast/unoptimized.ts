// Work of a second or two in a process that does nothing else: over before what V8 optimises for it has paid for
// itself. Of a sample of a guest's memory the optimising would be some 40 % of all CPU, more where pages can be compressed.

import { setFlagsFromString } from "node:v8";
import { hasNativeZstd } from "../../codec/entropy/zstd-native.ts";

/**
 * Has the work done by code as V8 first makes it. That holds for all threads, and WebAssembly that is compiled meanwhile
 * stays as it is: for a command that will do nothing like a migration afterwards, not for a library.
 */
export async function unoptimized<Result>(work: () => Promise<Result>): Promise<Result> {
  const set = (isOn: boolean) => {
    setFlagsFromString(isOn ? "--opt" : "--no-opt");
    // What it leaves alone: the quick optimiser (Maglev), on since Node 24. As long as no function passes its filter it
    // has nothing to do, and whether it is on does not have to be known.
    setFlagsFromString(isOn ? "--maglev-filter=*" : "--maglev-filter=-*");
    // One function of zstd takes some 50 ms to optimise. With Node's own zstd there is no such WebAssembly.
    if (hasNativeZstd()) return;
    setFlagsFromString(isOn ? "--wasm-tier-up" : "--no-wasm-tier-up");
    setFlagsFromString(isOn ? "--wasm-dynamic-tiering" : "--no-wasm-dynamic-tiering");
  };
  set(false);
  try {
    return await work();
  } finally {
    set(true);
  }
}
