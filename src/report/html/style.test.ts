// Colour blindness by the matrices of Machado, Oliveira and Fernandes (2009) for
// its full degree; distance of colours as CIE 1976 Delta E.

import { describe, expect, test } from "vitest";
import { contrast, linear, luminance, type Triple } from "../../../test/support/colours.ts";
import { BACKGROUND, CLASS_COLORS, SERIES_COLORS, TEXT_COLORS } from "./style.ts";

const VISIONS: Record<string, readonly [Triple, Triple, Triple]> = {
  full: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritanopia: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

function lab(color: Triple): Triple {
  const [r, g, b] = color;
  const f = (t: number) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const y = f(luminance(color));
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function seen(color: string, vision: readonly [Triple, Triple, Triple]): Triple {
  const [r, g, b] = linear(color);
  const row = ([x, y, z]: Triple) => Math.min(1, Math.max(0, x * r + y * g + z * b));
  return [row(vision[0]), row(vision[1]), row(vision[2])];
}

function distance(a: Triple, b: Triple): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

describe.each(["light", "dark"] as const)("On the %s page", (theme) => {
  test("text and graphics stand out from the background", () => {
    for (const color of Object.values(TEXT_COLORS[theme])) {
      expect(contrast(color, BACKGROUND[theme]), color).toBeGreaterThan(4.5);
    }
    for (const color of [...SERIES_COLORS[theme], ...CLASS_COLORS[theme]]) {
      expect(contrast(color, BACKGROUND[theme]), color).toBeGreaterThan(3);
    }
  });

  test.each(Object.keys(VISIONS))("colours of one plot are told apart with %s vision", (name) => {
    const vision = VISIONS[name];
    if (vision === undefined) throw new Error(name);
    for (const palette of [SERIES_COLORS[theme], CLASS_COLORS[theme]]) {
      for (const [index, color] of palette.entries()) {
        for (const other of palette.slice(0, index)) {
          const apart = distance(lab(seen(color, vision)), lab(seen(other, vision)));
          expect(apart, `${color} and ${other}`).toBeGreaterThan(15);
        }
      }
    }
  });
});
