// All scenarios, in the order in which they are shown.

import type { Scenario } from "../model.ts";
import { compile } from "./compile.ts";
import { enterprise } from "./enterprise.ts";
import { idle } from "./idle.ts";
import { keyvalue } from "./keyvalue.ts";
import { lmbench } from "./lmbench.ts";
import { postgres } from "./postgres.ts";
import { video } from "./video.ts";
import { writer } from "./writer.ts";

export const scenarios: readonly Scenario[] = [
  lmbench,
  writer,
  video,
  enterprise,
  postgres,
  keyvalue,
  compile,
  idle,
];
