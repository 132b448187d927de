// Whether KVM really works here, which tests and benchmarks ask as the lab does.

export * from "../../src/lab/guest/accelerator.ts";
