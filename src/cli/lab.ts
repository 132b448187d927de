// `deltavee lab`: moves real VMs between test hosts by every method there is, and tells what their users saw. Parses and
// prints; what is done is in src/lab.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { CancelledError, DeltaveeError, UsageError } from "../base/errors.ts";
import { formatBytesPerSecond, formatMs, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { METHODS } from "../lab/method/all.ts";
import { DOWNTIME_MS_MAX_DEFAULT } from "../lab/method/method.ts";
import type { Scenario } from "../lab/model.ts";
import {
  AFTER_MS_DEFAULT,
  BEFORE_MS_DEFAULT,
  EXPERIMENTS,
  FORCE_AFTER_MS_DEFAULT,
  LIMIT_MS_DEFAULT,
  plansOf,
  QEMU_DEFAULT,
} from "../lab/run/experiments.ts";
import { takeLock } from "../lab/run/lock.ts";
import { estimateMs, type MatrixResult, runMatrix } from "../lab/run/matrix.ts";
import { runOnce } from "../lab/run/one-run.ts";
import { planText, type RunPlan } from "../lab/run/plan.ts";
import { ResultStore } from "../lab/run/store.ts";
import { SCENARIOS } from "../lab/scenario/index.ts";
import { plain } from "../report/text.ts";
import { onInterrupt } from "./common.ts";
import { openMatrixDisplay, planAsJson } from "./lab/display.ts";
import {
  LINK_DEFAULT,
  METHODS_DEFAULT,
  NAME_DEFAULT,
  parseAboveZeroMs,
  parseForceAfter,
  parseLoss,
  parseMemoryMiB,
  parseMethods,
  parseName,
  parseParameter,
  parseRoundTrip,
  parseRuns,
  parseVcpus,
  plansFor,
  type RunOptions,
} from "./lab/request.ts";
