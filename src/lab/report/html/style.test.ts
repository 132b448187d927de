import { expect, test } from "vitest";
import { contrast, linear, luminance } from "../../../../test/support/colours.ts";
import { TEXT_COLORS } from "../../../report/html/style.ts";
import { HEAT_LEVELS } from "../sweeps.ts";
import { HEAT_COLORS, WINNER_COLORS } from "./style.ts";

test.each(["light", "dark"] as const)("Text can be read on every colour of a map on the %s page", (theme) => {
  for (const color of [...HEAT_COLORS[theme], ...Object.values(WINNER_COLORS[theme])]) {
    expect(contrast(TEXT_COLORS[theme].text, color), color).toBeGreaterThan(4.5);
  }
});

test.each(["light", "dark"] as const)("Levels of a map go one way in brightness on the %s page", (theme) => {
  const brightness = HEAT_COLORS[theme].map((color) => luminance(linear(color)));
  expect(brightness).toHaveLength(HEAT_LEVELS);
  const ascending = brightness.toSorted((a, b) => a - b);
  expect(brightness).toEqual(theme === "dark" ? ascending : ascending.toReversed());
});
