// What the paper claims, as data: Svärd, Hudzia, Tordsson, Elmroth, "Evaluation of delta compression techniques for
// efficient live migration of large virtual machines", VEE 2011, pp. 111-120. From its abstract alone: how its own
// figures came about (links, guests, milliseconds per test) is for its readers, and nothing of it is guessed here.

export const PAPER =
  "Svärd, Hudzia, Tordsson, Elmroth: Evaluation of delta compression techniques for efficient live migration of large virtual machines (VEE 2011, pp. 111–120)";

export interface PaperClaim {
  readonly id: string;
  readonly claim: string;
  /** Where in the paper. */
  readonly where: string;
  /** Scenarios in which it is looked for; empty: all. */
  readonly scenarios: readonly string[];
  /** How claims.ts judges it. */
  readonly measure: "downtime falls" | "downtime factor" | "users notice" | "succeeds" | "when it pays";
}

export const CLAIMS: readonly PaperClaim[] = [
  {
    id: "always",
    claim:
      "Delta compression raises the throughput of the migration, so that downtime falls in all test cases.",
    where: "abstract",
    scenarios: [],
    measure: "downtime falls",
  },
  {
    id: "benchmark",
    claim: "In a benchmark scenario downtime is reduced by a factor of 100.",
    where: "abstract",
    scenarios: ["lmbench", "writer"],
    measure: "downtime factor",
  },
  {
    id: "video",
    claim:
      "A server streaming video: no perceivable downtime; by the standard algorithm the picture freezes for 8 s.",
    where: "abstract",
    scenarios: ["video"],
    measure: "users notice",
  },
  {
    id: "enterprise",
    claim: "A very large enterprise system is migrated successfully; after the standard algorithm it fails.",
    where: "abstract",
    scenarios: ["enterprise", "postgres"],
    measure: "succeeds",
  },
  {
    id: "when",
    claim: "An analysis of the general effects of delta compression, and of when it is beneficial.",
    where: "abstract",
    scenarios: [],
    measure: "when it pays",
  },
];

/** The factor that the paper's benchmark reached. */
export const PAPER_FACTOR = 100;
/** Users are said to notice nothing when it is no longer than this. */
export const UNNOTICED_MS_MAX = 100;
