// What is asked for on the command line, as runs; and nonsense, refused with what would have been sense.

import { describe, expect, test } from "vitest";
import { fakeScenario } from "../../../test/support/fake-stage.ts";
import { recordName } from "../../lab/run/plan.ts";
import {
  parseForceAfter,
  parseLoss,
  parseMemoryMiB,
  parseMethods,
  parseName,
  parseParameter,
  parseRoundTrip,
  parseRuns,
  parseVcpus,
  plansFor,
} from "./request.ts";

const SCENARIOS = [fakeScenario(), fakeScenario({ name: "writer" }), fakeScenario({ name: "lmbench" })];

describe("a scenario", () => {
  test("is moved by a stock method and by the tunnel over one link, where nothing else is said", () => {
    expect(plansFor("fake", {}, SCENARIOS).map(recordName)).toEqual([
      "fake-vanilla-100mbit-10.0-default-1.ndjson",
      "fake-tunnel-100mbit-10.0-default-1.ndjson",
    ]);
  });

  test("is varied in everything that can be said", () => {
    const options = {
      ...{ name: "slow", method: ["direct"], runs: 2, qemu: "7.2", link: 1.25e6, rtt: 20, loss: 0.001 },
      congestion: "bbr" as const,
      ...{ set: { bytesPerPage: 8 }, memory: 1024, vcpus: 2, maxDowntime: 100 },
      ...{ forceAfter: 10_000, limit: 20_000, before: 1, after: 2 },
    };
    const plans = plansFor("fake", options, SCENARIOS);
    expect(plans.map(recordName)).toEqual([
      "fake-direct-10mbit-rtt20-loss0.1-bbr-7.2-bytesPerPage=8,memoryMiB=1024,vcpus=2-1.ndjson",
      "fake-direct-10mbit-rtt20-loss0.1-bbr-7.2-bytesPerPage=8,memoryMiB=1024,vcpus=2-2.ndjson",
    ]);
    expect(plans[0]).toMatchObject({
      ...{ experiment: "slow", downtimeMsMax: 100, forceAfterMs: 10_000, limitMs: 20_000 },
      ...{ beforeMs: 1, afterMs: 2 },
      setting: { parameters: { bytesPerPage: 8, pattern: "sparse" }, guest: { memoryMiB: 1024, vcpus: 2 } },
    });
  });
});

test("an experiment is cut down to what is asked for of it", () => {
  const plans = plansFor("lmbench", { experiment: "qemu-7.2", method: ["tunnel"], runs: 1 }, SCENARIOS);
  expect(plans.map(recordName)).toEqual(["lmbench-tunnel-100mbit-7.2-default-1.ndjson"]);
});

test("of an experiment's links those are taken that are like what is asked for", () => {
  const links = (asked: object) =>
    plansFor("writer", { experiment: "links", method: ["tunnel"], ...asked }, SCENARIOS).map(
      (plan) => recordName(plan).split("-10.0-")[0],
    );
  expect(links({ link: 1.25e6, loss: 0.001 })).toEqual([
    "writer-tunnel-10mbit-loss0.1",
    "writer-tunnel-10mbit-rtt20-loss0.1",
    "writer-tunnel-10mbit-rtt100-loss0.1",
  ]);
  expect(links({ link: 125e6, rtt: 0, loss: 0 })).toEqual(["writer-tunnel-1000mbit"]);
  expect(() => links({ congestion: "bbr" })).toThrow("has no such runs");
  expect(() => links({ rtt: 21 })).toThrow('Experiment "links" has no such runs');
});

describe("nonsense is refused", () => {
  test.each([
    [undefined, {}, "What is to be run?"],
    ["flying", {}, 'There is no scenario "flying" (fake, writer, lmbench)'],
    ["fake", { experiment: "smoke", memory: 512 }, "--memory is not for an experiment"],
    ["fake", { experiment: "smoke", maxDowntime: 1 }, "--max-downtime is not for an experiment"],
    ["flying", { experiment: "smoke" }, 'There is no scenario "flying"'],
    [undefined, { experiment: "headlines" }, 'There is no experiment "headlines"'],
    ["fake", { set: { bytesPrePage: 1 } }, 'no parameter "bytesPrePage" (bytesPerPage, pattern)'],
    ["fake", { set: { pattern: 7 } }, 'pattern of "fake" must be a string'],
    [
      "fake",
      { forceAfter: 30_000, limit: 30_000 },
      "--limit (30.0 s) must be later than --force-after (30.0 s)",
    ],
  ] as const)("%s %j", (scenario, options, message) => {
    let thrown: unknown;
    try {
      plansFor(scenario, options, SCENARIOS);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: "USAGE", message: expect.stringContaining(message) });
  });

  test.each([
    [parseMethods, ["vanilla,teleport", ""]],
    [parseParameter, ["bytesPerPage", "=1", "bytesPerPage=", "1=2"]],
    [parseLoss, ["0.1", "100%", "-1%", "%"]],
    [parseName, ["../elsewhere", "", "a/b", ".hidden", "-x"]],
    [parseRuns, ["0", "1.5", "many", "1001"]],
    [parseVcpus, ["0", "65"]],
    [parseMemoryMiB, ["64MiB", "1000000", "lots"]],
    [parseForceAfter, ["1s", "soon"]],
    [parseRoundTrip, ["11s", "20"]],
  ] as const)("%o of %j", (parse, texts) => {
    for (const text of texts)
      expect(() => parse(text), text).toThrow(expect.objectContaining({ code: "USAGE" }));
  });
});

test("what is said again and again is gathered, once", () => {
  expect(parseMethods("tunnel,direct", parseMethods("vanilla,tunnel"))).toEqual([
    "vanilla",
    "tunnel",
    "direct",
  ]);
  expect(parseParameter("pattern=dense", parseParameter("bytesPerPage=64"))).toEqual({
    bytesPerPage: 64,
    pattern: "dense",
  });
});

test("a share of packets is said in percent, as tc has it", () => {
  expect([parseLoss("0.1%"), parseLoss("0%"), parseLoss("12.5%")]).toEqual([0.001, 0, 0.125]);
});
