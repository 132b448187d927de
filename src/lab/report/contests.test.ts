import { describe, expect, it } from "vitest";
import { METHODS } from "../method/all.ts";
import { byMethod } from "./contests.ts";

describe("methods in tables", () => {
  it("stand in the order in which the lab has them, and others behind", () => {
    const names = METHODS.map(({ name }) => name);
    const shuffled = ["a-method-of-later", ...names.toReversed()];
    expect(shuffled.sort(byMethod)).toEqual([...names, "a-method-of-later"]);
  });
});
