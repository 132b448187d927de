// The soak (test/soak, `npm run soak`) in short: what a process holds does not grow with the moves that it has made, nor
// with the peers that have come and gone. The long runs are in docs/reliability.md.

import { openSync } from "node:fs";
import { describe, expect, onTestFinished, test } from "vitest";
import { GROWTH_BYTES_MAX, type Measure, measureSelf, trendOf } from "../soak/measure.ts";
import { moveQemu } from "../soak/moves-qemu.ts";
import { moveV86 } from "../soak/moves-v86.ts";
import { soakReceive } from "../soak/receive.ts";
import { tempFolder } from "../support/processes.ts";
import { findQemus } from "../support/qemu-binaries.ts";

const qemu10 = findQemus().get("10.0");
const nobody = () => {};
/** Of peers that say nothing: in the long runs longer than the lobby lets them stay. */
const STAY_MS_MAX = 1500;

/** For temporary files, and nobody else's. */
function ownFolder(): string {
  const folder = tempFolder();
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder.path;
  onTestFinished(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
    folder.remove();
  });
  return folder.path;
}

test("a descriptor that is left open at each step is found, and so is memory", async () => {
  const folder = ownFolder();
  const leaks: Measure[] = [];
  for (let step = 0; step < 4; step++) {
    openSync("/dev/null", "r");
    leaks.push(await measureSelf(folder));
  }
  expect(trendOf(leaks).grown).toEqual(["descriptors"]);
  const [still] = leaks as [Measure];
  expect(trendOf([still, still, still]).grown).toEqual([]);
  const residentBytes = still.residentBytes + GROWTH_BYTES_MAX + 1;
  expect(trendOf([still, { ...still, residentBytes }]).grown).toEqual(["resident memory"]);
});

test("an embedded guest moves six times, and nothing stays behind", async () => {
  const measures = await moveV86(6, ownFolder(), nobody);
  expect(measures).toHaveLength(6);
  expect(trendOf(measures).grown, JSON.stringify(measures)).toEqual([]);
});

describe.skipIf(qemu10 === undefined)("with QEMU 10.0", () => {
  test("a guest moves four times, in both modes by turns, and nothing stays behind", async () => {
    const measures = await moveQemu(qemu10!, 4, ownFolder(), nobody);
    expect(measures).toHaveLength(4);
    expect(trendOf(measures).grown, JSON.stringify(measures)).toEqual([]);
  });

  test("peers of all kinds come and go, and receive holds what it held before", async () => {
    const soak = await soakReceive(qemu10!, 100, 7, ownFolder(), nobody, STAY_MS_MAX);
    expect(trendOf(soak.measures).grown).toEqual([]);
    expect(Object.values(soak.kinds).filter((count) => count === 0)).toEqual([]);
  });
});
