// The kernels: what the hot path runs on pages and batches. AssemblyScript, compiled by scripts/build.mjs to
// three WebAssembly modules (SIMD, scalar, debug). The memory is imported and shared with other threads.
// What each function takes, returns and asks of its caller is told in src/kernel/kernel.ts, once.

export { copy, fill, isEqual, isZero } from "./bytes";
export { sampledEntropy } from "./entropy";
export { hash32 } from "./hash";
export { lz4Compress, lz4Decompress } from "./lz4";
export { wordMaskDecode, wordMaskEncode, wordMaskToXbzrle } from "./word-mask";
export { xbrleDecode, xbrleEncode } from "./xbrle";
export { xbzrleDecode, xbzrleEncode } from "./xbzrle";
