// What a check of `deltavee doctor` has found, and how all of them are told.

import { plain } from "../../report/text.ts";

/** ok: nothing to do. warning: it works, though not as well as it could. problem: a migration will fail on it. */
export type Level = "ok" | "warning" | "problem";

export interface Finding {
  /** Stable name of what was looked at, e.g. "kvm". */
  readonly check: string;
  readonly level: Level;
  /** What was found, with values. */
  readonly says: string;
  /** What follows from it. */
  readonly means?: string;
  /** What to do about it. */
  readonly advice?: string;
  /** The same in figures, for programs. */
  readonly values?: Readonly<Record<string, string | number | boolean | readonly string[]>>;
}

const LEVELS: readonly Level[] = ["ok", "warning", "problem"];

export function worstOf(findings: readonly Finding[]): Level {
  return LEVELS.findLast((level) => findings.some((finding) => finding.level === level)) ?? "ok";
}

export function findingsText(findings: readonly Finding[]): string {
  const checkWidth = Math.max(...findings.map(({ check }) => check.length));
  const levelWidth = Math.max(...LEVELS.map((level) => level.length));
  const indent = " ".repeat(levelWidth + checkWidth + 4);
  const lines = findings.flatMap(({ level, check, says, means, advice }) => [
    `${level.padEnd(levelWidth)}  ${check.padEnd(checkWidth)}  ${plain(says)}`,
    ...(means === undefined ? [] : [`${indent}${plain(means)}`]),
    ...(advice === undefined ? [] : [`${indent}-> ${plain(advice)}`]),
  ]);
  const counts = (["problem", "warning"] as const).map((level) => {
    const count = findings.filter((finding) => finding.level === level).length;
    return `${count} ${level}${count === 1 ? "" : "s"}`;
  });
  return `${lines.join("\n")}\n\n${counts.join(", ")}\n`;
}
