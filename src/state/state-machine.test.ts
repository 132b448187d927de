// The state machine as docs/reliability.md draws it, against the one that there is (engine/handover.ts).

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PACKAGE_ROOT } from "../../test/support/package-root.ts";
import { VirtualClock } from "../base/clock.ts";
import { Handover } from "../engine/handover.ts";
import type { Phase } from "../record/schema.ts";
import { RunRecord } from "../record/writer.ts";

const PHASES: Phase[] = ["setup", "iterating", "switchover", "committed", "completed", "failed", "cancelled"];

function handoverIn(phases: readonly Phase[]): Handover {
  const handover = new Handover(new RunRecord({ clock: new VirtualClock() }));
  for (const phase of phases) handover.enter(phase);
  return handover;
}

test("the diagram of docs/reliability.md has the transitions that there are, and no others", () => {
  const document = readFileSync(join(PACKAGE_ROOT, "docs/reliability.md"), "utf8");
  const diagram = /```mermaid\nstateDiagram-v2\n([^`]*)```/.exec(document)![1]!;
  const drawn = [...diagram.matchAll(/^ *(\w+) --> (\w+)/gm)].map(([, from, to]) => `${from} to ${to}`);
  const waysTo: Record<string, Phase[]> = {
    setup: [],
    iterating: ["iterating"],
    switchover: ["iterating", "switchover"],
    committed: ["iterating", "switchover", "committed"],
    completed: ["iterating", "switchover", "committed", "completed"],
    failed: ["failed"],
    cancelled: ["cancelled"],
  };
  const possible = PHASES.flatMap((from) =>
    PHASES.filter((to) => {
      const machine = handoverIn(waysTo[from]!);
      try {
        machine.enter(to);
        return true;
      } catch {
        return false;
      }
    }).map((to) => `${from} to ${to}`),
  );
  expect([...new Set(drawn)].sort()).toEqual(possible.sort());
});
