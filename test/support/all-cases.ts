/**
 * Whether tables are gone through whole (ALL_CASES=1) that otherwise are left out in part: cases that say again what
 * others have said, of another combination.
 */
export const ALL_CASES: boolean = process.env.ALL_CASES === "1";
