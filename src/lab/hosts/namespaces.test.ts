import { describe, expect, it } from "vitest";
import { removeNamespaces } from "./namespaces.ts";

describe("test hosts that are removed", () => {
  it("go all but the one that cannot, which is named, and which a second call tries again", async () => {
    const names = ["source", "destination", "client"];
    const removed: string[] = [];
    let isBusy = true;
    const remove = async (name: string) => {
      if (name === "destination" && isBusy) throw new Error("Processes in destination do not end: 42");
      removed.push(name);
    };
    await expect(removeNamespaces(names, remove)).rejects.toThrow(/are left: .*destination do not end: 42/);
    expect(removed).toEqual(["source", "client"]);
    expect(names).toEqual(["destination"]);
    isBusy = false;
    await removeNamespaces(names, remove);
    expect(removed).toEqual(["source", "client", "destination"]);
    expect(names).toEqual([]);
  });
});
