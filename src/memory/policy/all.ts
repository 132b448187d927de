// Every policy there is, as tables list them. docs/page-cache.md says what each is good for, and why the default is
// the default.

import { ARC } from "./arc.ts";
import { DIRECT_MAPPED } from "./direct-mapped.ts";
import { HISTORY } from "./history.ts";
import type { PolicyKind } from "./policy.ts";
import { secondTouch } from "./second-touch.ts";
import { setAssociative } from "./set-associative.ts";

export const POLICIES: readonly PolicyKind[] = [
  DIRECT_MAPPED,
  setAssociative(2),
  setAssociative(4),
  setAssociative(8),
  ARC,
  secondTouch(setAssociative(8)),
  secondTouch(ARC),
  HISTORY,
];
