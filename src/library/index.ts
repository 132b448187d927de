// What `import ... from "deltavee"` gives: all that is public, and nothing else can be reached. docs/api.md is made of
// the comments of what stands here.

export {
  CancelledError,
  DeltaveeError,
  type ErrorCode,
  LinkError,
  ProtocolError,
  QemuStreamError,
  QmpCommandError,
  QmpInterruptedError,
  TlsError,
  UsageError,
  type VmWhere,
} from "../base/errors.ts";
export { version } from "../base/version.ts";
export type { Interval, MethodForecast, Plan } from "../planner/forecast.ts";
export type { MethodName } from "../planner/methods.ts";
export type { GuestModel } from "../record/guest-model.ts";
export type { RecordEvent } from "../record/schema.ts";
export { type BootOptions, EmbeddedVm, type EmbeddedVmOptions } from "./embedded-vm.ts";
export type { SecurityOptions } from "./identity.ts";
export { type MigrateOptions, migrate } from "./migrate.ts";
export type { RunOptions } from "./options.ts";
export { type PlanOptions, type PlanResult, plan } from "./plan.ts";
export { type ReceiveOptions, receive } from "./receive.ts";
export type { RunResult, Summary } from "./run.ts";
