// Rules for who may hand over which VM, and that what was said elsewhere is not taken for what is said here.

import { describe, expect, test } from "vitest";
import type { HelloFrame, ResumeFrame } from "../wire/frame.ts";
import { helloFrame } from "../wire/handshake.ts";
import { checkRules, parseAllow, refusalOf } from "./admission.ts";

const BINDING = "00112233445566778899aabbccddeeff";
const FINGERPRINT = "ab".repeat(32);
const UUID = "5f3ecf5a-6f3d-4f0c-9b0e-3e9a1f0c7d11";
const secure = {
  binding: BINDING,
  peer: { fingerprint: FINGERPRINT, title: "host1", isNamed: (name: string) => name === "host1.example" },
};

function hello(body: Partial<HelloFrame["body"]> = {}): HelloFrame {
  return helloFrame({
    deltavee: "test",
    session: BINDING,
    hypervisor: { kind: "qemu", version: "10.0.2" },
    entropyCodecs: [1],
    ...body,
  });
}
const resume: ResumeFrame = {
  type: "resume",
  version: 3,
  stage: "streaming",
  connection: 2,
  session: BINDING,
  token: BINDING,
  returnBytes: 0,
};

function judged(
  rules: string[],
  body: Partial<HelloFrame["body"]> = {},
  from: typeof secure | "plain text" = secure,
): string | undefined {
  const parsed = rules.flatMap((rule) => parseAllow(rule));
  return refusalOf(
    { frame: hello(body), from: "x", secure: from === "plain text" ? undefined : from },
    parsed,
    undefined,
  )?.message;
}

describe("--allow", () => {
  test.each([
    [[]],
    [["host1.example"]],
    [["other.example", "host1.example"]],
    [["*"]],
    [["*=web-3"]],
    [["host1.example=web-3"]],
    [[`host1.example=${UUID.toUpperCase()}`]],
    [[`sha256:${FINGERPRINT}`]],
    [[`SHA256:${FINGERPRINT.toUpperCase().match(/../g)!.join(":")}=web-3`]],
    [["host1.example=db-1", "host1.example=web-3"]],
  ])("%j lets it in", (rules) => {
    expect(judged(rules, { name: "web-3", uuid: UUID })).toBeUndefined();
  });

  test.each([
    [["other.example"], '"host1" may hand nothing over here'],
    [["host1"], '"host1" may hand nothing over here'],
    [[`sha256:${"ac".repeat(32)}`], '"host1" may hand nothing over here'],
    [["host1.example=db-1"], '"host1" may not hand over this VM (web-3)'],
    [["other.example=web-3", "host1.example=db-1"], '"host1" may not hand over this VM (web-3)'],
    [["*=db-1"], '"host1" may not hand over this VM (web-3)'],
  ])("%j does not", (rules, message) => {
    expect(judged(rules, { name: "web-3", uuid: UUID })).toBe(message);
  });

  test("a VM without a name is none that was named", () => {
    expect(judged(["*=web-3"])).toBe('"host1" may not hand over this VM (it has no name)');
    expect(judged(["*"])).toBeUndefined();
  });

  test.each(["", "=web-3", "host1=", "sha256:abc", `sha256:${"zz".repeat(32)}`])("%j is no rule", (text) => {
    expect(() => parseAllow(text)).toThrow(/Not a (rule|fingerprint): /);
  });

  test("without TLS a rule can only name VMs", () => {
    expect(() => checkRules(parseAllow("host1.example"), false)).toThrow(
      /without TLS nobody proves who he is/,
    );
    expect(() => checkRules(parseAllow("*=web-3"), false)).not.toThrow();
    expect(() => checkRules(parseAllow("host1.example"), true)).not.toThrow();
    expect(judged(["*=web-3"], { name: "web-3" }, "plain text")).toBeUndefined();
    expect(judged(["*=web-3"], { name: "db-1" }, "plain text")).toBe(
      "a source may not hand over this VM (db-1)",
    );
  });
});

describe("what is said belongs to its connection", () => {
  test("a session of another connection is refused, whoever says it", () => {
    const session = BINDING.replace("0", "1");
    expect(judged([], { session })).toBe("the session is not that of this connection");
    expect(judged([], { session }, "plain text")).toBeUndefined();
  });

  test("a migration is resumed by who began it, and by nobody else", () => {
    const other = { ...secure, peer: { ...secure.peer, fingerprint: "cd".repeat(32) } };
    const refusal = (from: typeof secure | undefined, began: typeof secure | undefined) =>
      refusalOf({ frame: resume, from: "x", secure: from }, [], { peer: began?.peer })?.code;
    expect(refusal(secure, secure)).toBeUndefined();
    expect(refusal({ ...secure, binding: "another connection" }, secure)).toBeUndefined();
    expect(refusal(other, secure)).toBe("UNAUTHORISED");
    expect(refusal(undefined, secure)).toBe("UNAUTHORISED");
    expect(refusal(undefined, undefined)).toBeUndefined();
    expect(refusalOf({ frame: resume, from: "x", secure }, [], undefined)?.code).toBe("SESSION");
  });
});
