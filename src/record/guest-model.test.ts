import { expect, test } from "vitest";
import { modelOf } from "../../test/support/guest-model.ts";
import { parsed } from "../base/schema.ts";
import { guestModelSchema, roundedModel } from "./guest-model.ts";

test("a record keeps five digits of what is estimated, and whole numbers as they are", () => {
  const model = { ...modelOf({ hotPages: 1234.56789, changesPerSecond: 1 / 3 }), pages: 268_435_456 };
  const kept = roundedModel(model);
  expect(kept.rateClasses[1]).toMatchObject({ pages: 1234.6, changesPerSecond: 0.33333 });
  expect(kept.pages).toBe(268_435_456);
  expect(parsed(guestModelSchema, kept)).toEqual(kept);
});
