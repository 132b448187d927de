import { expect, test } from "vitest";
import { answerHello, helloFrame } from "../../wire/handshake.ts";
import { MANAGED_QEMU } from "./identity.ts";

const QEMU = { kind: "qemu" as const, version: "10.0.2" };
const SIDE = { deltavee: "0.1.0", entropyCodecs: [1] };

test.each([
  ["a proxy with a proxy", MANAGED_QEMU, MANAGED_QEMU, "welcome"],
  ["a proxy with deltavee receive", MANAGED_QEMU, QEMU, "refuse"],
  ["deltavee migrate with a proxy", QEMU, MANAGED_QEMU, "refuse"],
])("%s: %s", (_what, source, destination, type) => {
  const hello = helloFrame({ ...SIDE, session: "00112233445566778899aabbccddeeff", hypervisor: source });
  const answer = answerHello(hello, { ...SIDE, hypervisor: destination });
  expect(answer.type).toBe(type);
  if (answer.type === "refuse") expect(answer.reason).toMatchObject({ code: "HYPERVISOR" });
});
