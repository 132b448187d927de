import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProtocolError } from "../base/errors.ts";
import type { Hello, Welcome } from "./bodies.ts";
import type { WelcomeFrame } from "./frame.ts";
import { encodeFrame } from "./frame.ts";
import { FrameReader } from "./frame-reader.ts";
import {
  abortFrame,
  answerHello,
  helloFrame,
  negotiateVersion,
  PROTOCOL_VERSIONS,
  refusalError,
  refusalFor,
  refuseFrame,
  welcomeMismatch,
} from "./handshake.ts";

const HELLO: Hello = {
  deltavee: "0.1.0",
  session: "00112233445566778899aabbccddeeff",
  hypervisor: { kind: "qemu", version: "10.0.2" },
  entropyCodecs: [3, 1],
};
const OWN: Welcome = {
  deltavee: "0.2.0",
  hypervisor: { kind: "qemu", version: "7.2.22" },
  entropyCodecs: [1, 2, 3],
};

const range = fc
  .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }))
  .map(([a, b]) => ({ min: Math.min(a, b), max: Math.max(a, b) }));

describe("version negotiation", () => {
  test("chooses the highest version that both sides speak, or none", () => {
    fc.assert(
      fc.property(range, range, (a, b) => {
        const speaks = (r: typeof a, v: number) => r.min <= v && v <= r.max;
        const common = [1, 2, 3, 4, 5, 6, 7, 8, 9].filter((v) => speaks(a, v) && speaks(b, v));
        expect(negotiateVersion(a, b)).toBe(common.at(-1));
      }),
    );
  });

  test("a peer one version newer that still speaks ours is welcome", () => {
    const newer = { ...helloFrame(HELLO), versions: { min: 6, max: 7 } };
    expect(answerHello(newer, OWN)).toMatchObject({ type: "welcome", version: 6 });
    expect(answerHello(helloFrame(HELLO), OWN, { min: 6, max: 7 })).toMatchObject({ version: 6 });
  });

  test("a peer one version older is welcome, in its version", () => {
    const older = { ...helloFrame(HELLO), versions: { min: 3, max: 4 } };
    expect(answerHello(older, OWN)).toMatchObject({ type: "welcome", version: 4 });
    expect(answerHello(helloFrame(HELLO), OWN, { min: 3, max: 4 })).toMatchObject({ version: 4 });
  });

  test("ranges that do not overlap are refused with both of them named", () => {
    const newer = { ...helloFrame(HELLO), versions: { min: 7, max: 8 } };
    expect(answerHello(newer, OWN)).toEqual({
      type: "refuse",
      reason: {
        code: "VERSION",
        message: "source speaks protocol versions 7 to 8, destination 3 to 6 (Deltavee 0.2.0)",
      },
    });
  });
});

describe("answerHello", () => {
  test("chooses the codecs that both know, in the source's order, and says who answers", () => {
    expect(answerHello(helloFrame(HELLO), OWN)).toEqual({
      type: "welcome",
      version: PROTOCOL_VERSIONS.max,
      body: { deltavee: "0.2.0", entropyCodecs: [3, 1], hypervisor: OWN.hypervisor },
    });
  });

  test("refuses a source without a codec in common", () => {
    expect(answerHello(helloFrame({ ...HELLO, entropyCodecs: [9] }), OWN)).toMatchObject({
      reason: { code: "CODEC", message: "source offers entropy codecs 9, destination knows 1, 2, 3" },
    });
  });

  test.each<[string, Partial<Hello>, Partial<Welcome>]>([
    ["another kind", { hypervisor: { kind: "v86", version: "1" } }, {}],
    [
      "another compatibility",
      { hypervisor: { kind: "v86", version: "1", compatibility: "a" } },
      { hypervisor: { kind: "v86", version: "1", compatibility: "b" } },
    ],
    [
      "compatibility on one side only",
      { hypervisor: { kind: "v86", version: "1", compatibility: "a" } },
      { hypervisor: { kind: "v86", version: "1" } },
    ],
  ])("refuses a hypervisor of %s", (_, hello, own) => {
    const answer = answerHello(helloFrame({ ...HELLO, ...hello }), { ...OWN, ...own });
    expect(answer).toMatchObject({ type: "refuse", reason: { code: "HYPERVISOR" } });
  });

  test("accepts equal compatibility, and another version of the same kind", () => {
    const hypervisor = { kind: "v86", version: "1", compatibility: "a" } as const;
    const own = { ...OWN, hypervisor: { ...hypervisor, version: "2" } };
    expect(answerHello(helloFrame({ ...HELLO, hypervisor }), own).type).toBe("welcome");
  });
});

describe("welcomeMismatch", () => {
  const hello = helloFrame(HELLO);
  const welcome: WelcomeFrame = { type: "welcome", version: 3, body: { ...OWN, entropyCodecs: [1] } };

  test("finds nothing in what answerHello chose", () => {
    const answer = answerHello(hello, OWN);
    expect(answer.type === "welcome" && welcomeMismatch(hello, answer)).toBeUndefined();
  });

  test.each<[string, WelcomeFrame, string]>([
    ["a version", { ...welcome, version: 1 }, "version 1 was not offered (3 to 6)"],
    [
      "a codec",
      { ...welcome, body: { ...OWN, entropyCodecs: [1, 2] } },
      "entropy codec 2 was not offered (3, 1)",
    ],
    [
      "a hypervisor",
      { ...welcome, body: { ...welcome.body, hypervisor: { kind: "v86", version: "1" } } },
      "source hypervisor is qemu 10.0.2, destination's v86 1",
    ],
  ])("finds %s that was not offered", (_, answer, mismatch) => {
    expect(welcomeMismatch(hello, answer)).toBe(mismatch);
  });
});

describe("reasons", () => {
  test.each([
    ["VERSION", "PROTOCOL_VERSION"],
    ["HYPERVISOR", "HYPERVISOR_INCOMPATIBLE"],
    ["BUSY", "PROTOCOL_REFUSED"],
    ["A_CODE_OF_THE_FUTURE", "PROTOCOL_REFUSED"],
  ])("REFUSE %s is reported as %s, with the code and the words of the destination", (code, errorCode) => {
    const error = refusalError({ type: "refuse", reason: { code, message: "because" } });
    expect(error.code).toBe(errorCode);
    expect(error.message).toBe(`Destination refused the migration (${code}): because`);
  });

  test("before WELCOME, a peer's mistake is answered with INVALID, one of ours with INTERNAL", () => {
    const theirs = new ProtocolError("PROTOCOL_INVALID_FRAME", "Invalid frame");
    expect(refusalFor(theirs).reason).toEqual({ code: "INVALID", message: "Invalid frame" });
    expect(refusalFor(new Error("Assertion failed: x")).reason.code).toBe("INTERNAL");
  });

  test("whatever an error's message holds, the peer can read it", () => {
    const anyMessage = fc.oneof(
      fc.string({ unit: "binary", maxLength: 2000 }),
      fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
      fc.constant(`${"x".repeat(1023)}\u{1f600}`),
    );
    fc.assert(
      fc.property(anyMessage, (message) => {
        for (const frame of [refuseFrame("INTERNAL", message), abortFrame("INTERNAL", message)]) {
          const reader = new FrameReader();
          reader.push(encodeFrame(frame));
          expect(reader.next()).toEqual(frame);
        }
      }),
    );
  });
});
