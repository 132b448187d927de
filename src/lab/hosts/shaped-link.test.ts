import { describe, expect, it } from "vitest";
import { shape } from "./shaped-link.ts";

describe("the token bucket of a link", () => {
  it("sends in bursts that its rate can be reached with, and never of less than the largest bunch of segments", () => {
    expect(shape(125e6)).toEqual(["rate", "1000000000bit", "burst", "500000", "latency", "50ms"]);
    expect(shape(1.25e6)).toEqual(["rate", "10000000bit", "burst", "65536", "latency", "50ms"]);
  });

  it("has a rate", () => {
    expect(() => shape(0)).toThrow("a link of 0 bytes per second");
  });
});
