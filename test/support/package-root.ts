// Where this package lies, which tests and benchmarks share with the lab.

export * from "../../src/base/package-root.ts";
