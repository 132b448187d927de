import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Beat, SerialWatch } from "./heartbeat.ts";
import type { Side } from "./messages.ts";

function watched(...pieces: [side: Side, text: string, hostMs: number][]) {
  const beats: Beat[] = [];
  const lines: string[] = [];
  const watch = new SerialWatch({ beat: (beat) => beats.push(beat), line: (line) => lines.push(line) });
  for (const [side, text, hostMs] of pieces) watch.push(side, text, hostMs);
  return { watch, beats, lines };
}

const beatLine = (counter: number) => `HB ${counter} ${counter * 10} 7\n`;

describe("The guest's serial line", () => {
  test("gives each heartbeat with the gap since the one before, whichever side that was on", () => {
    const { beats, watch } = watched(
      ["source", beatLine(0), 100],
      ["source", beatLine(1), 110],
      ["destination", beatLine(2), 185],
    );
    expect(beats.map(({ side, counter, gapMs }) => [side, counter, gapMs])).toEqual([
      ["source", 0, 0],
      ["source", 1, 10],
      ["destination", 2, 75],
    ]);
    expect(watch.downtimeMs).toBe(75);
    expect(watch.broken).toBeUndefined();
  });

  test("gives everything else as it is", () => {
    expect(watched(["source", "\nREADY ws=4\r\nHB x\n", 1]).lines).toEqual(["", "READY ws=4", "HB x"]);
  });

  test("is one line, though it begins on the source and ends at the destination, cut anywhere", () => {
    const text = `READY\n${[0, 1, 2, 3, 4].map(beatLine).join("")}VERIFY ok\n`;
    fc.assert(
      fc.property(fc.array(fc.nat(text.length)), fc.nat(text.length), (cuts, movedAt) => {
        const ends = [...cuts, movedAt, text.length].sort((a, b) => a - b);
        let start = 0;
        const pieces = ends.map((end): [Side, string, number] => {
          const piece = text.slice(start, end);
          start = end;
          return [end <= movedAt ? "source" : "destination", piece, end];
        });
        const { beats, lines, watch } = watched(...pieces);
        expect(beats.map(({ counter }) => counter)).toEqual([0, 1, 2, 3, 4]);
        expect(lines).toEqual(["READY", "VERIFY ok"]);
        expect(watch.broken).toBeUndefined();
      }),
    );
  });

  test("is broken when a heartbeat is missing, comes twice, or goes back", () => {
    for (const counter of [0, 1, 3, 900]) {
      const { watch } = watched(
        ["source", `${beatLine(0)}${beatLine(1)}`, 10],
        ["destination", beatLine(counter), 20],
      );
      expect(watch.broken).toBe(`heartbeat ${counter} (destination) came after 1 (source)`);
    }
  });

  test("is broken when the guest runs on the source after it has left", () => {
    const { watch } = watched(
      ["source", beatLine(0), 10],
      ["destination", beatLine(1), 20],
      ["source", beatLine(2), 30],
    );
    expect(watch.broken).toMatch(/ran on the source/);
  });

  test("counts what comes right after the arrival as downtime, and nothing later", () => {
    const arrived: [Side, string, number][] = [
      ["source", beatLine(0), 0],
      ["destination", beatLine(1), 50],
      ["destination", beatLine(2), 250],
    ];
    expect(watched(...arrived).watch.downtimeMs).toBe(200);
    expect(watched(...arrived, ["destination", beatLine(3), 9000]).watch.downtimeMs).toBe(200);
  });
});
