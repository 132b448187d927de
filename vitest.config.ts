import { defineConfig } from "vitest/config";

// Three projects: "unit" (also property and short fuzz tests, beside the code), "sim" (whole migrations in which
// something goes wrong, on a virtual clock), and "e2e" (real VMs in real processes). E2e files run one after another: each starts two emulators, and machines may have two cores.

/** VM workers and the command-line program run compiled. */
const BUILD = "test/support/build.ts";

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          globalSetup: BUILD,
          include: ["src/**/*.test.ts"],
          testTimeout: 60_000,
        },
      },
      {
        test: {
          name: "sim",
          globalSetup: BUILD,
          include: ["test/sim/**/*.test.ts"],
          testTimeout: 600_000,
        },
      },
      {
        test: {
          name: "e2e",
          globalSetup: BUILD,
          include: ["test/e2e/**/*.test.ts"],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
