import { expect, test } from "vitest";
import { UsageError } from "../base/errors.ts";
import { numberOf, wordOf } from "./parameters.ts";

test("a number within its limits is taken as it is", () => {
  expect(numberOf({ bytesPerPage: 4096 }, "bytesPerPage", { min: 1, max: 4096 })).toBe(4096);
  expect(numberOf({ rate: 0 }, "rate")).toBe(0);
});

test("a number that is missing, no number or out of its limits is refused with its name and limits", () => {
  const limits = { min: 1, max: 4096 };
  for (const parameters of [{}, { bytesPerPage: "64" }, { bytesPerPage: 0 }, { bytesPerPage: 4097 }]) {
    expect(() => numberOf(parameters, "bytesPerPage", limits)).toThrow(/bytesPerPage .* from 1 to 4096/);
    expect(() => numberOf(parameters, "bytesPerPage", limits)).toThrow(UsageError);
  }
  expect(() => numberOf({ bytesPerPage: Number.NaN }, "bytesPerPage", limits)).toThrow(UsageError);
});

test("a word is one of its list, and the refusal shows the list", () => {
  expect(wordOf({ benchmark: "wr" }, "benchmark", ["wr", "rd"])).toBe("wr");
  for (const parameters of [{}, { benchmark: "write" }, { benchmark: 0 }]) {
    expect(() => wordOf(parameters, "benchmark", ["wr", "rd"])).toThrow("one of wr, rd");
  }
});
