import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { documentOf, versionOf } from "./redis-values.ts";
import { WriteLedger } from "./write-ledger.ts";

const key = fc.nat(1_000_000);
const version = fc.nat(4_000_000_000);

describe("a value", () => {
  it("tells its version, to who knows the key", () => {
    fc.assert(
      fc.property(key, version, (key, version) => {
        expect(versionOf(documentOf(key, version, 512), key, 512)).toBe(version);
      }),
    );
  });

  it("of another key, or with any byte changed, has none", () => {
    fc.assert(
      fc.property(key, version, fc.nat(), (key, version, place) => {
        const value = documentOf(key, version, 128);
        expect(versionOf(value, key + 1, 128)).toBeUndefined();
        const at = place % value.length;
        const other = value[at] === "0" ? "1" : "0";
        const damaged = value.slice(0, at) + other + value.slice(at + 1);
        expect(versionOf(damaged, key, 128)).not.toBe(version);
      }),
    );
    for (const stored of ["", "{}", documentOf(1, 2, 128).slice(0, -1), `${documentOf(1, 2, 128)} `]) {
      expect(versionOf(stored, 1, 128), stored).toBeUndefined();
    }
  });

  it("differs in most of its fields from the version before, and has about the length that was asked for", () => {
    let sum = 0;
    for (let key = 0; key < 1000; key++) {
      const [before, after] = [documentOf(key, 7, 512), documentOf(key, 8, 512)];
      sum += after.length;
      const contents = (value: string) => value.split(",").slice(2);
      const same = contents(before).filter((field, index) => field === contents(after)[index]);
      expect(same.length).toBeLessThan(3);
    }
    expect(sum / 1000).toBeGreaterThan(400);
    expect(sum / 1000).toBeLessThan(700);
  });
});

describe("a ledger of writes", () => {
  const ledger = new WriteLedger(10, 64);
  for (let i = 0; i < 5; i++) ledger.send(3);
  ledger.acknowledge(3, 3);

  it("takes what was acknowledged, and anything that was sent after it", () => {
    for (const version of [3, 4, 5]) expect(ledger.judge(3, documentOf(3, version, 64))).toBe("good");
    expect(ledger.judge(4, documentOf(4, 0, 64))).toBe("good");
  });

  it("misses what is older than acknowledged, or not there at all", () => {
    expect(ledger.judge(3, documentOf(3, 2, 64))).toBe("lost");
    expect(ledger.judge(3, null)).toBe("lost");
  });

  it("does not believe in what was never sent", () => {
    expect(ledger.judge(3, documentOf(3, 6, 64))).toBe("damaged");
    expect(ledger.judge(3, documentOf(4, 0, 64))).toBe("damaged");
    expect(ledger.judge(3, "")).toBe("damaged");
  });

  it("knows the keys that were written, as a sample where they are many", () => {
    expect(ledger.writtenKeys(10)).toEqual([3]);
    const many = new WriteLedger(1000, 64);
    for (let key = 0; key < 1000; key += 2) many.acknowledge(key, many.send(key));
    const sample = many.writtenKeys(100);
    expect(sample).toHaveLength(100);
    expect(new Set(sample).size).toBe(100);
    expect(sample.every((key) => key % 2 === 0)).toBe(true);
    expect(sample.at(-1)).toBeGreaterThan(900);
  });
});
