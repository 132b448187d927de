// Processes, ports and folders, which tests and benchmarks share with the lab.

export * from "../../src/lab/host-process.ts";
