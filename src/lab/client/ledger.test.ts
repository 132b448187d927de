import fc from "fast-check";
import { expect, it } from "vitest";
import { Ledger } from "./ledger.ts";
import { TransactionLog } from "./transaction-log.ts";

function ledger(): Ledger {
  return new Ledger(new TransactionLog(() => "during", 0));
}

it("what was acknowledged is found again, whatever happened to the commits without an answer", () => {
  const step = fc.record({
    outcome: fc.constantFrom("committed", "swallowed", "never arrived"),
    group: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const books = ledger();
      const database = [0, 0, 0, 0];
      for (const { outcome, group } of steps) {
        books.seen(group, [database[group]!, database[group]!]);
        const version = books.nextVersion(group);
        if (outcome !== "never arrived") database[group] = version;
        if (outcome === "committed") books.committed(group, 0, 1);
        else books.unsure(group);
      }
      for (const group of books.writtenGroups) books.seen(group, [database[group]!]);
      expect(books.writesLost).toBe(0);
    }),
  );
});

it("one lost write is one, however often its documents are read", () => {
  const books = ledger();
  for (let version = 0; version < 3; version++) books.committed(7, 0, 1);
  books.seen(7, [2, 2]);
  books.seen(7, [2, 2]);
  expect(books.writesLost).toBe(1);
  expect(books.nextVersion(7)).toBe(3);
});

it("half a commit, a commit that nobody made, and a document that is none are all lost writes", () => {
  for (const versions of [[1, 0], [2, 2], [Number.NaN, Number.NaN], []]) {
    const books = ledger();
    books.committed(1, 0, 1);
    books.seen(1, versions);
    expect(books.writesLost, String(versions)).toBe(1);
  }
});

it("a group of which nothing was ever acknowledged is looked at in the end too", () => {
  const books = ledger();
  books.unsure(5);
  expect(books.writtenGroups).toEqual([5]);
  books.seen(5, [2]);
  expect(books.writesLost).toBe(1);
});
