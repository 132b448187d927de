import { describe, expect, it } from "vitest";
import type { Scenario } from "../model.ts";
import { type WarmStateOf, warmKey } from "./warm-state.ts";

const scenario = {
  name: "probe",
  warmParameters: ["rows"],
  warmUp: async () => {},
} as unknown as Scenario;
const of: WarmStateOf = {
  scenario,
  parameters: { rows: 1, rate: 2 },
  shape: { memoryMiB: 512, vcpus: 1 },
  image: { key: "image", kernel: "/k", initramfs: "/i", disk: "/d", packages: "/p" },
  binary: { name: "10.0", version: { major: 10, minor: 0, micro: 2 }, path: "/q", leadingArguments: [] },
  accelerator: "tcg",
};

describe("the key of a warm state", () => {
  it("changes with all that the state was made from", () => {
    const others: Partial<WarmStateOf>[] = [
      { parameters: { rows: 3, rate: 2 } },
      { shape: { memoryMiB: 512, vcpus: 2 } },
      { shape: { memoryMiB: 1024, vcpus: 1 } },
      { image: { ...of.image, key: "another" } },
      { binary: { ...of.binary, version: { major: 10, minor: 0, micro: 3 } } },
      { accelerator: "kvm" },
      { scenario: { ...scenario, warmUp: async () => console.log("more") } },
    ];
    const keys = [of, ...others.map((other) => ({ ...of, ...other }))].map(warmKey);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it("does not change with what only the run depends on", () => {
    expect(warmKey({ ...of, parameters: { rows: 1, rate: 99 } })).toBe(warmKey(of));
  });
});
