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

test("who knocks without end is told of ever less often, and as at first once it was quiet", () => {
  const clock = new VirtualClock();
  let said = 0;
  const notices = new RareNotices(clock, () => said++);
  const knockForHours = (hours: number) => {
    for (let second = 0; second < hours * 3600; second++) {
      notices.say("somebody");
      clock.advance(1000);
    }
  };
  knockForHours(24);
  // Periods of 1, 2, 4, 8, 16 and 32 minutes, then of an hour: each time 20, and how many more there were.
  expect(said).toBeLessThan(6 * 21 + 24 * 21);
  clock.advance(24 * 3600_000);
  notices.say("after a quiet day");
  clock.advance(3600_000);
  said = 0;
  for (let i = 0; i < 30; i++) notices.say("somebody");
  clock.advance(60_000);
  notices.say("somebody");
  expect(said).toBe(20 + 2);
});
