import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DeltaveeError, QemuStreamError } from "../../base/errors.ts";
import { type DeviceState, decodeDeviceState, encodeDeviceState } from "./device-state.ts";

const COMPATIBILITY = "v86=0.5;memoryBytes=1024";

function v86State(bytes: number): ArrayBuffer {
  const state = new ArrayBuffer(bytes);
  new Uint32Array(state).set([0x86768676, 6, bytes, 0]);
  return state;
}

function deviceState(): DeviceState {
  return { compatibility: COMPATIBILITY, unfinishedLine: "HB 12", state: v86State(4096) };
}

describe("a device state", () => {
  it("is the same after the journey", () => {
    expect(decodeDeviceState(encodeDeviceState(deviceState()), COMPATIBILITY)).toEqual(deviceState());
  });

  it("is refused by another VM, with what differs", () => {
    const bytes = encodeDeviceState(deviceState());
    expect(() => decodeDeviceState(bytes, "v86=0.5;memoryBytes=2048")).toThrow(
      expect.objectContaining({
        code: "HYPERVISOR_INCOMPATIBLE",
        message: expect.stringContaining("memoryBytes is 2048 here and 1024 there"),
      }),
    );
  });

  it("is refused when any of its bytes is damaged or missing", () => {
    const whole = encodeDeviceState(deviceState());
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, difference) => {
        const damaged = whole.slice();
        damaged[at] = damaged[at]! ^ difference;
        let decoded: DeviceState;
        try {
          decoded = decodeDeviceState(damaged, COMPATIBILITY);
        } catch (error) {
          expect(error).toBeInstanceOf(DeltaveeError);
          return;
        }
        // The text of the unfinished line has no checksum; everything else has.
        expect({ ...decoded, unfinishedLine: "" }).toEqual({ ...deviceState(), unfinishedLine: "" });
      }),
    );
    for (let length = 0; length < whole.length; length++) {
      expect(() => decodeDeviceState(whole.subarray(0, length), COMPATIBILITY)).toThrow(DeltaveeError);
    }
  });

  it("of arbitrary bytes is a typed error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        expect(() => decodeDeviceState(noise, COMPATIBILITY)).toThrow(QemuStreamError);
        const headed = encodeDeviceState(deviceState());
        headed.set(noise.subarray(0, headed.length - 5), 5);
        try {
          decodeDeviceState(headed, COMPATIBILITY);
        } catch (error) {
          expect(error).toBeInstanceOf(DeltaveeError);
        }
      }),
    );
  });

  it("is not inflated beyond the size that it names, nor if that is beyond the limit", () => {
    const bytes = encodeDeviceState({ ...deviceState(), state: v86State(1024 * 1024) });
    const view = new DataView(bytes.buffer);
    view.setUint32(9, 4096, true);
    expect(() => decodeDeviceState(bytes, COMPATIBILITY)).toThrow("cannot be inflated");
    view.setUint32(9, 0xffff_ffff, true);
    expect(() => decodeDeviceState(bytes, COMPATIBILITY)).toThrow("above the limit");
  });
});
