import type { V86 } from "v86";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Emulator, startEmulator } from "./emulator.ts";
import { PRIVATE_NAMES, privateParts } from "./private-names.ts";

/** `original`, unchanged, as it would look without what `path` names. */
function without(original: object, path: string): object {
  const [name = "", ...rest] = path.split(".");
  const value =
    rest.length === 0 ? undefined : without((original as Record<string, object>)[name]!, rest.join("."));
  return Object.create(original, { [name]: { value } });
}

describe("the private names of v86", () => {
  let emulator: Emulator;

  beforeAll(async () => {
    emulator = await startEmulator(4 * 1024 * 1024);
  });
  afterAll(() => emulator.v86.destroy());

  it("are all there in the release that is installed", () => {
    expect(privateParts(emulator.v86)).toBe(emulator.loop);
  });

  it.each(Object.keys(PRIVATE_NAMES))("make v86 refused, by name, without %s", (path) => {
    expect(() => privateParts(without(emulator.v86, path) as V86)).toThrow(
      expect.objectContaining({ code: "HYPERVISOR_INCOMPATIBLE", message: expect.stringContaining(path) }),
    );
  });
});
