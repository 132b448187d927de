import fc from "fast-check";
import { expect, it } from "vitest";
import { RedisOrders } from "./order-database.ts";
import type { RedisCommand } from "./redis.ts";
import { RespErrorReply, type RespReply } from "./resp.ts";

const SHAPE = { documentsPerGroup: 2, documentBytes: 100, changedBytes: 20 };

function orders(replies: readonly RespReply[], { shape = SHAPE, random = Math.random } = {}) {
  const sent: RedisCommand[] = [];
  const pipeline = async (commands: readonly RedisCommand[]) => {
    sent.push(...commands);
    return replies;
  };
  return { sent, database: new RedisOrders({ pipeline, close: () => {} }, shape, random) };
}

it("a lock is taken only where nobody has it, and a session that has gone is told from a lock that is taken", async () => {
  const { database, sent } = orders([1, "OK"]);
  expect(await database.renewAndLock(3, 7, 5000)).toEqual({ isSessionAlive: true, isLocked: true });
  expect(sent).toEqual([
    ["PEXPIRE", "session:3", 5000],
    ["SET", "lock:7", 3, "NX", "PX", 5000],
  ]);
  expect(await orders([0, null]).database.renewAndLock(3, 7, 5000)).toEqual({
    isSessionAlive: false,
    isLocked: false,
  });
});

it("documents are read under the lock's watch, and what is no document has a version that is no number", async () => {
  const { database, sent } = orders(["OK", "3", '000000000041{"order":14}', null]);
  expect(await database.read(3, 7)).toEqual({ hasLock: true, versions: [41, Number.NaN] });
  expect(sent.map(([name, key]) => `${name} ${key}`)).toEqual([
    "WATCH lock:7",
    "GET lock:7",
    "GET document:14",
    "GET document:15",
  ]);
  expect((await orders(["OK", "4", "0", "0"]).database.read(3, 7)).hasLock).toBe(false);
});

it("a commit is one transaction of Redis, which did nothing when the lock had changed", async () => {
  const { database, sent } = orders(["OK", "QUEUED", []]);
  expect(await database.commit(3, 7, 42)).toBe(true);
  const names = sent.map(([name]) => name);
  expect([names[0], names.at(-2), names.at(-1)]).toEqual(["MULTI", "DEL", "EXEC"]);
  expect(sent).toContainEqual(["SETRANGE", "document:15", 0, "000000000042"]);
  expect(await orders(["OK", "QUEUED", null]).database.commit(3, 7, 42)).toBe(false);
  const refused = orders(["OK", new RespErrorReply("OOM no memory"), new RespErrorReply("EXECABORT")]);
  await expect(refused.database.commit(3, 7, 42)).rejects.toThrow("OOM no memory");
});

it("what a commit changes lies inside the document, behind its version, whatever the dice say", async () => {
  const almostOne = 1 - 2 ** -53;
  const dice = fc.array(fc.double({ min: 0, max: almostOne, noNaN: true }), { minLength: 5, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(dice, fc.integer({ min: 1, max: 88 }), async (rolls, changedBytes) => {
      let rolled = 0;
      // Some numbers have few digits: what is made of them must be long enough all the same.
      const random = () => rolls[rolled++ % rolls.length]! || 0.1;
      const { database, sent } = orders([[]], { shape: { ...SHAPE, changedBytes }, random });
      await database.commit(1, 0, 1);
      const fields = sent.filter(([name, , at]) => name === "SETRANGE" && at !== 0);
      expect(fields.length).toBe(2);
      for (const [, , at, text] of fields) {
        expect(at).toBeGreaterThanOrEqual(12);
        expect(Number(at) + String(text).length).toBeLessThanOrEqual(100);
        expect(String(text).length).toBe(changedBytes);
      }
    }),
  );
});

it("versions are told group by group", async () => {
  const { database } = orders(["000000000001", "000000000001", "000000000009", "000000000008"]);
  expect(await database.versions([5, 9])).toEqual([
    [1, 1],
    [9, 8],
  ]);
});
