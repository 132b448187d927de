import { expect, test } from "vitest";
import { VirtualClock } from "./clock.ts";
import { RareNotices } from "./rare-notices.ts";

test("strangers are told of one by one, but not without end, and how many more there were", () => {
  const clock = new VirtualClock();
  const said: string[] = [];
  const notices = new RareNotices(clock, (text) => said.push(text));
  for (let i = 0; i < 1000; i++) notices.say(`stranger ${i}`);
  expect(said).toHaveLength(20);
  clock.advance(59_000);
  notices.say("too soon");
  expect(said).toHaveLength(20);
  clock.advance(1000);
  notices.say("another");
  expect(said.slice(20)).toEqual(["981 more like that were not said", "another"]);
});
