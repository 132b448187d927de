import { describe, expect, it } from "vitest";
import { makeRoot, parsePackages, recipe, sourcesList } from "./debian.ts";

describe("the list of packages", () => {
  it("has packages and sources, and its comments and empty lines are none", () => {
    const text = "# The system\nbusybox-static\n\nlibstdc++6 # a library\nsrc:lua5.4\n";
    expect(parsePackages(text)).toEqual({ binary: ["busybox-static", "libstdc++6"], source: ["lua5.4"] });
  });

  it("cannot carry anything but names to a shell", () => {
    for (const line of ["lua5.4; reboot", "src:$(reboot)", "a b", "-o=Evil::Option", "src:"]) {
      expect(() => parsePackages(line), line).toThrow("names no package");
    }
  });
});

describe("the recipe", () => {
  it("changes with the packages, so that the key of the image does", () => {
    const some = { binary: ["gcc"], source: ["lua5.4"] };
    expect(recipe(some)).not.toEqual(recipe({ ...some, source: [] }));
    expect(recipe(some)).not.toEqual(recipe({ ...some, binary: ["tcc"] }));
  });
});

describe("what apt is told", () => {
  it("is this host's own mirror, where it is a Debian of the same release", () => {
    const sources = [
      "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main",
      "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main",
    ].join("\n\n");
    const text = sourcesList(sources);
    expect(text).toMatch(/^deb \[.*\] http:\/\/mirror\.example\/debian bookworm main non-free$/m);
    expect(text).toMatch(/^deb \[.*\] http:\/\/mirror\.example\/security bookworm-security main non-free$/m);
  });

  it("is Debian's mirror elsewhere", () => {
    for (const sources of [undefined, "Types: deb\nURIs: http://mirror.example/x\nSuites: trixie\n"]) {
      expect(sourcesList(sources)).toMatch(/^deb \[.*\] http:\/\/deb\.debian\.org\/debian bookworm /m);
    }
  });
});

describe("the making of a root file system", () => {
  it("does not begin once it has been called off", async () => {
    const reason = new Error("interrupted");
    const made = makeRoot("/nowhere", { binary: [], source: [] }, () => {}, AbortSignal.abort(reason));
    await expect(made).rejects.toBe(reason);
  });
});
