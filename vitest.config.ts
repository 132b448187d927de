import { defineConfig } from "vitest/config";

// Three projects: "unit" (also property and short fuzz tests, beside the code), "sim" (whole migrations in which
// something goes wrong, on a virtual clock), and "e2e" (real VMs in real processes). E2e files run one after another: each starts two emulators, and machines may have two cores.

/** VM workers and the command-line program run compiled. */
const BUILD = "test/support/build.ts";
/** What is waited for comes within milliseconds on a quiet machine; the default of a second fails on one that is busy. */
const POLL = { poll: { timeout: 30_000 } };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          globalSetup: BUILD,
          include: ["src/**/*.test.ts"],
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
          include: ["test/sim/**/*.test.ts"],
          testTimeout: 600_000,
          expect: POLL,
        },
      },
      {
        test: {
          name: "e2e",
          globalSetup: BUILD,
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          expect: POLL,
          fileParallelism: false,
        },
      },
    ],
  },
});
