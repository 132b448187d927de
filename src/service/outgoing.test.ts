// The queue of what leaves, with migrations that are but promises: so many at a time, in order, each VM once, and nothing
// lost when it stops.

import { expect, test } from "vitest";
import { CancelledError, DeltaveeError } from "../base/errors.ts";
import { PAST_MAX } from "./moves.ts";
import { OutgoingMoves, type OutgoingOrder } from "./outgoing.ts";

interface Made {
  order: OutgoingOrder;
  isRunning(): boolean;
  finish(): void;
  fail(error: Error): void;
}

function make(vm: string): Made {
  let resolve: (end: { vm: "with the destination" }) => void;
  let reject: (error: Error) => void;
  const outcome = new Promise<{ vm: "with the destination" }>((onResolve, onReject) => {
    [resolve, reject] = [onResolve, onReject];
  });
  let isRunning = false;
  return {
    order: {
      vm,
      key: vm,
      peer: "host2:4445",
      weight: 1,
      move: ({ signal }) => {
        isRunning = true;
        const cancel = () =>
          reject(new CancelledError("Cancelled by the operator", { vm: "running on source" }));
        signal.addEventListener("abort", cancel);
        return outcome.finally(() => {
          isRunning = false;
        });
      },
    },
    isRunning: () => isRunning,
    finish: () => resolve({ vm: "with the destination" }),
    fail: (error) => reject(error),
  };
}

/** Lets everything that is due happen. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof DeltaveeError) return thrown.code;
    throw thrown;
  }
  return "none";
}

test("so many are under way at a time, in the order in which they were asked for", async () => {
  const moves = new OutgoingMoves({ concurrent: 2, queued: 10 });
  const made = ["a", "b", "c", "d"].map(make);
  for (const { order } of made) moves.add(order);
  expect(made.map(({ isRunning }) => isRunning())).toEqual([true, true, false, false]);
  expect([moves.runningCount, moves.queuedCount]).toEqual([2, 2]);
  made[1]!.finish();
  await settle();
  expect(made.map(({ isRunning }) => isRunning())).toEqual([true, false, true, false]);
  expect(moves.moves.map(({ view: { vm, state } }) => `${vm} ${state}`)).toEqual([
    "b completed",
    "a running",
    "c running",
    "d queued",
  ]);
});

test("one that fails makes way for the next, and says why and where its guest is", async () => {
  const moves = new OutgoingMoves({ concurrent: 1, queued: 10 });
  const [bad, good] = [make("bad"), make("good")];
  const { id } = moves.add(bad.order);
  moves.add(good.order);
  bad.fail(new DeltaveeError("LINK_LOST", "gone", { vm: "running on source" }));
  await settle();
  expect(good.isRunning()).toBe(true);
  expect(moves.moves.find(({ subject }) => subject.id === id)?.view).toMatchObject({
    state: "failed",
    where: "running on source",
    error: { code: "LINK_LOST", message: "gone" },
  });
});

test("a VM is moved once at a time, and too many do not wait", async () => {
  const moves = new OutgoingMoves({ concurrent: 1, queued: 1 });
  const [a, b] = [make("a"), make("b")];
  moves.add(a.order);
  expect(codeOf(() => moves.add(make("a").order))).toBe("USAGE");
  moves.add(b.order);
  expect(codeOf(() => moves.add(make("b").order))).toBe("USAGE");
  expect(codeOf(() => moves.add(make("c").order))).toBe("SERVICE_BUSY");
  a.finish();
  await settle();
  expect(codeOf(() => moves.add(make("a").order))).toBe("none");
});

test("one that waits is cancelled at once, one under way where it can be, one that is over not at all", async () => {
  const moves = new OutgoingMoves({ concurrent: 1, queued: 10 });
  const [a, b] = [make("a"), make("b")];
  const [idA, idB] = [moves.add(a.order).id, moves.add(b.order).id];
  expect(moves.cancel(idB)).toMatchObject({ state: "cancelled", error: { code: "CANCELLED" } });
  expect(moves.cancel(idA)).toMatchObject({ state: "running" });
  await settle();
  expect(moves.cancel(idA)).toMatchObject({ state: "cancelled", where: "running on source" });
  expect(b.isRunning()).toBe(false);
  expect(moves.cancel("00000000")).toBeUndefined();
});

test("told to stop it gives up what waits, takes nothing new, and is done when what is under way is", async () => {
  const moves = new OutgoingMoves({ concurrent: 1, queued: 10 });
  const [a, b] = [make("a"), make("b")];
  moves.add(a.order);
  const { id } = moves.add(b.order);
  let isDone = false;
  void moves.stop().then(() => {
    isDone = true;
  });
  expect(codeOf(() => moves.add(make("c").order))).toBe("SERVICE_STOPPING");
  expect(moves.moves.find(({ subject }) => subject.id === id)?.view).toMatchObject({
    state: "cancelled",
    error: { code: "SERVICE_STOPPING" },
  });
  await settle();
  expect(isDone).toBe(false);
  a.finish();
  await settle();
  expect(isDone).toBe(true);
  expect(b.isRunning()).toBe(false);
});

test("of those that are over the last ones are remembered", async () => {
  const moves = new OutgoingMoves({ concurrent: 1, queued: 1 });
  for (let i = 0; i < PAST_MAX + 5; i++) {
    const made = make(`vm-${i}`);
    moves.add(made.order);
    made.finish();
    await settle();
  }
  expect(moves.moves).toHaveLength(PAST_MAX);
  expect(moves.moves[0]?.subject.vm).toBe("vm-5");
});
