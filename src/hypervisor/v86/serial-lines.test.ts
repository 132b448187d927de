import { describe, expect, it } from "vitest";
import { LINE_CHARACTERS_MAX, SerialLines } from "./serial-lines.ts";

function write(serial: SerialLines, text: string): void {
  for (const byte of Buffer.from(text, "latin1")) serial.byte(byte);
}

describe("serial lines", () => {
  it("come out when they end, without their end, and empty ones too", () => {
    const lines: string[] = [];
    const serial = new SerialLines((line) => lines.push(line));
    write(serial, "READY\n\nHB 1 2\r\nHB");
    expect(lines).toEqual(["READY", "", "HB 1 2"]);
    expect(serial.unfinished).toBe("HB");
  });

  it("are continued elsewhere from what was unfinished", () => {
    const lines: string[] = [];
    const serial = new SerialLines((line) => lines.push(line));
    serial.unfinished = "HB 1";
    write(serial, "2 3\n");
    expect(lines).toEqual(["HB 12 3"]);
  });

  it("are cut at the limit when the guest does not end them", () => {
    const lines: string[] = [];
    const serial = new SerialLines((line) => lines.push(line));
    write(serial, "x".repeat(LINE_CHARACTERS_MAX + 1));
    expect(lines).toEqual(["x".repeat(LINE_CHARACTERS_MAX)]);
    expect(serial.unfinished).toBe("x");
  });
});
