import { describe, expect, it } from "vitest";
import { assertCompatible, describeCompatibility } from "./compatibility.ts";

describe("two sides", () => {
  const here = describeCompatibility({ v86: "0.5.462", memoryBytes: 64 });

  it("are compatible when all fields are equal", () => {
    expect(() =>
      assertCompatible(here, describeCompatibility({ v86: "0.5.462", memoryBytes: 64 })),
    ).not.toThrow();
  });

  it("are refused with every difference named", () => {
    const there = describeCompatibility({ v86: "0.5.999", memoryBytes: 32, options: "a" });
    expect(() => assertCompatible(here, there)).toThrow(
      expect.objectContaining({
        code: "HYPERVISOR_INCOMPATIBLE",
        message:
          "The two sides cannot run the same v86 VM: v86 is 0.5.462 here and 0.5.999 there, " +
          "memoryBytes is 64 here and 32 there, options is unknown here and a there",
      }),
    );
  });

  it("are refused when the peer's description is nonsense", () => {
    for (const there of ["", ";", "=", `${here};`, `${here};${here}`]) {
      expect(() => assertCompatible(here, there)).toThrow("cannot run the same v86 VM");
    }
  });
});
