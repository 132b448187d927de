// What a QEMU says of its guest, asked over QMP: for the judgement of where a guest is (whereabouts.ts).

import { DeltaveeError, toError } from "../base/errors.ts";
import { type QmpAddress, QmpClient } from "../hypervisor/qemu/qmp.ts";
import type { Answers, QemuView } from "./whereabouts.ts";

const TIMEOUT_MS = 3000;
/** Of a connect: there is no such socket, or nobody who listens on it. */
const NOBODY: ReadonlySet<unknown> = new Set(["ENOENT", "ECONNREFUSED"]);

/** Looks once. */
export async function viewQemu(address: QmpAddress): Promise<QemuView> {
  return withQemu(address, async (_qmp, view) => view);
}

/** Calls `use` with a connection and what was seen; with no connection when there is none to be had. */
export async function withQemu<Result>(
  address: QmpAddress,
  use: (qmp: QmpClient | undefined, view: QemuView) => Promise<Result>,
): Promise<Result> {
  let qmp: QmpClient | undefined;
  let view: QemuView;
  try {
    qmp = await QmpClient.connect(address, { connectTimeoutMs: TIMEOUT_MS });
    view = await askQemu(qmp);
  } catch (thrown) {
    const reason = toError(thrown).message;
    view = { kind: nobodyListens(thrown) ? "gone" : "silent", reason };
    qmp?.close();
    qmp = undefined;
  }
  try {
    return await use(qmp, view);
  } finally {
    qmp?.close();
  }
}

/** @throws DeltaveeError when there is no answer */
export async function askQemu(qmp: QmpClient): Promise<Answers> {
  const { status, running } = await qmp.execute("query-status", {}, { timeoutMs: TIMEOUT_MS });
  const { status: migration } = await qmp.execute("query-migrate", {}, { timeoutMs: TIMEOUT_MS });
  return { kind: "answers", running, status, migration };
}

function nobodyListens(thrown: unknown): boolean {
  if (!(thrown instanceof DeltaveeError) || thrown.code !== "QMP_UNAVAILABLE") return false;
  for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
    if ("code" in cause && NOBODY.has(cause.code)) return true;
  }
  return false;
}
