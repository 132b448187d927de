import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// Projects: "unit" (also property and short fuzz tests, beside the code), "sim" (whole migrations in which something goes
// wrong, on a virtual clock), and real VMs in real processes. Of these "e2e" runs more files at a time than there are
// cores, since most of their time they wait, for slow links and for guests: what they assert holds on a machine that is
// busy. "e2e-calm", after it, is for the lab, and beside it for what judges rates, or must keep up with a guest to end.

/** VM workers and the command-line program run compiled. */
const BUILD = "test/support/build.ts";
const PROPERTIES = "test/support/property-seed.ts";
/** What is waited for comes within milliseconds on a quiet machine; the default of a second fails on one that is busy. */
const POLL = { poll: { timeout: 30_000 } };
/** Vitest itself leaves one out. */
const CORES = availableParallelism();

/** Each uses little more than half of a core on average, two at times, and several hundred MiB. */
const E2E_FILES_AT_A_TIME = Math.min(Math.max(CORES, 2), 6);
/** The lab on one core, and the others, one after the other, on another. */
const CALM_FILES_AT_A_TIME = 2;
const CALM = ["lab", "lab-hosts", "page", "plan", "serve", "convergence", "v86-migration"].map(
  (name) => `test/e2e/${name}.test.ts`,
);
/** Time-outs only for what would never end. */
const E2E = { globalSetup: BUILD, testTimeout: 600_000, hookTimeout: 600_000, expect: POLL };

/** These take minutes: whoever begins with them does not wait for the last of them alone. */
const LONG = [
  "lab",
  "qemu-faults",
  "postcopy",
  "convergence",
  "failures",
  "v86-migration",
  "crash",
  "v86-faults",
].map((name) => `${name}.test.ts`);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = LONG.indexOf(basename(moduleId));
      return at === -1 ? LONG.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          globalSetup: BUILD,
          setupFiles: PROPERTIES,
          include: ["src/**/*.test.ts"],
          maxWorkers: CORES,
          // Only for what would never end: the longest take half a minute on a machine that is busy.
          testTimeout: 300_000,
          hookTimeout: 300_000,
          expect: POLL,
        },
      },
      {
        test: {
          name: "sim",
          globalSetup: BUILD,
          setupFiles: PROPERTIES,
          include: ["test/sim/**/*.test.ts"],
          maxWorkers: CORES,
          testTimeout: 600_000,
          expect: POLL,
        },
      },
      {
        test: {
          ...E2E,
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          exclude: CALM,
          maxWorkers: E2E_FILES_AT_A_TIME,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...E2E,
          name: "e2e-calm",
          include: CALM,
          maxWorkers: CALM_FILES_AT_A_TIME,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
