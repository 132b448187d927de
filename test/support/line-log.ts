// Lines of a process, which tests and benchmarks share with the lab.

export * from "../../src/lab/line-log.ts";
