// The configuration file: what is read of it, and that each mistake in it is named by its line and its key.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { DeltaveeError } from "../base/errors.ts";
import { describeSettings } from "./settings.ts";
import { defaultFileText, parseSettings, readSettings, settingsJsonSchema } from "./settings-file.ts";

function mistakes(text: string): string[] {
  try {
    parseSettings(text, "serve.yaml");
  } catch (thrown) {
    if (!(thrown instanceof DeltaveeError)) throw thrown;
    expect(thrown.code).toBe("CONFIG_INVALID");
    return thrown.message.split("\n").map((line) => line.trim());
  }
  throw new Error("It was taken");
}

test("an empty file, and one of comments, is all defaults", () => {
  const settings = parseSettings("", "/etc/deltavee/serve.yaml");
  expect(settings).toEqual(parseSettings("# nothing\n", "/etc/deltavee/serve.yaml"));
  expect(settings.outgoing).toMatchObject({ concurrent: 4, weight: 1, maxDowntime: 300, onStall: "wait" });
  expect(settings.incoming.listen).toBeUndefined();
  expect(settings.http.listen).toEqual({ host: "127.0.0.1", port: 9437 });
  expect(settings.shutdown.graceTime).toBe(600_000);
});

test("values are read into base units, paths as from the file's folder", () => {
  const text = [
    "control: run/control.sock",
    "recordDir: /var/log/deltavee",
    "link: { rate: 100mbit }",
    "outgoing:",
    "  maxDowntime: 50ms",
    "  maxBytes: 5GB",
    "incoming:",
    "  listen: 0.0.0.0:4445",
    "  qmp: 'vms/{name}.qmp'",
    "",
  ].join("\n");
  const settings = parseSettings(text, "/etc/deltavee/serve.yaml");
  expect(settings).toMatchObject({
    control: "/etc/deltavee/run/control.sock",
    recordDir: "/var/log/deltavee",
    link: { rate: 12_500_000 },
    outgoing: { maxDowntime: 50, maxBytes: 5e9 },
    incoming: { listen: { kind: "tcp", host: "0.0.0.0", port: 4445 }, qmp: "/etc/deltavee/vms/{name}.qmp" },
  });
});

/** Of each key: what is written, other than its default, and what is read. */
const OTHERS: Readonly<Record<string, readonly [written: unknown, read: unknown]>> = {
  control: ["/run/c.sock", "/run/c.sock"],
  stateDir: ["/run/state", "/run/state"],
  recordDir: ["/var/log/d", "/var/log/d"],
  "tls.dir": ["/etc/pki/qemu", "/etc/pki/qemu"],
  "tls.keysDir": ["/var/keys", "/var/keys"],
  "tls.insecurePlaintext": [true, true],
  "link.rate": ["80mbit", 10_000_000],
  "outgoing.concurrent": [7, 7],
  "outgoing.queued": [9, 9],
  "outgoing.weight": [2.5, 2.5],
  "outgoing.maxDowntime": ["2s", 2000],
  "outgoing.maxTime": ["3m", 180_000],
  "outgoing.maxBytes": ["1GB", 1e9],
  "outgoing.onStall": ["abort", "abort"],
  "outgoing.cacheSize": ["1MiB", 2 ** 20],
  "outgoing.forecast": [false, false],
  "incoming.listen": ["127.0.0.1:1", { kind: "tcp", host: "127.0.0.1", port: 1 }],
  "incoming.concurrent": [2, 2],
  "incoming.qmp": ["/vms/{uuid}", "/vms/{uuid}"],
  "incoming.allow": [["host1"], ["host1"]],
  "incoming.paused": [true, true],
  "incoming.baselineSize": ["2MiB", 2 ** 21],
  "incoming.reconnectTimeout": ["0s", 0],
  "http.listen": ["[::1]:80", { host: "::1", port: 80 }],
  "http.enabled": [false, false],
  "http.hostNames": [["scraped"], ["scraped"]],
  "metrics.vmNames": [true, true],
  "log.format": ["text", "text"],
  "log.level": ["error", "error"],
  "shutdown.graceTime": ["1s", 1000],
};

test("each key is read into its own place, and no other is touched by it", () => {
  expect(describeSettings().map(({ key }) => key)).toEqual(Object.keys(OTHERS));
  const defaults = parseSettings("", "/serve.yaml");
  for (const [key, [written, read]] of Object.entries(OTHERS)) {
    const [last, ...above] = key.split(".").reverse();
    const nested = (value: unknown) =>
      above.reduce<object>((inner, name) => ({ [name]: inner }), { [last!]: value });
    const [part] = above.reverse();
    const expected =
      part === undefined
        ? { ...defaults, [key]: read }
        : { ...defaults, [part]: { ...defaults[part as "link"], [last!]: read } };
    expect(parseSettings(JSON.stringify(nested(written)), "/serve.yaml"), key).toEqual(expected);
  }
});

test("what is written as a default is what is so without the key", () => {
  const defaults = parseSettings("", "/serve.yaml");
  for (const { key, default: written } of describeSettings()) {
    const [part, name] = key.split(".");
    const text =
      written === undefined
        ? ""
        : name === undefined
          ? `${key}: ${written}`
          : `${part}: { ${name}: ${written} }`;
    expect(parseSettings(text, "/serve.yaml"), key).toEqual(defaults);
  }
  // And these are they: what changes a service that says nothing of it is seen here.
  expect(defaults).toEqual({
    tls: { insecurePlaintext: false },
    link: {},
    outgoing: {
      ...{ concurrent: 4, queued: 1000, weight: 1, maxDowntime: 300, onStall: "wait", forecast: true },
    },
    incoming: { concurrent: 4, allow: [], paused: false, baselineSize: 0, reconnectTimeout: 60_000 },
    http: { listen: { host: "127.0.0.1", port: 9437 }, enabled: true, hostNames: [] },
    metrics: { vmNames: false },
    log: { format: "auto", level: "info" },
    shutdown: { graceTime: 600_000 },
  });
});

test("JSON is taken as well", () => {
  expect(parseSettings('{"link": {"rate": "1gbit"}}', "serve.json").link.rate).toBe(125_000_000);
});

test("every mistake is named, with its line and key", () => {
  const text = [
    "link:",
    "  rate: 900",
    "outgoing:",
    "  concurent: 3",
    "  weight: 0",
    "  onStall: hope",
    "incoming:",
    "  listen: nowhere",
    "colour: red",
    "",
  ].join("\n");
  expect(mistakes(text)).toEqual([
    "serve.yaml:2:3: link.rate: expected text, e.g. 900mbit",
    "serve.yaml:5:3: outgoing.weight: expected at least 0.01",
    expect.stringMatching(/^serve\.yaml:6:3: outgoing\.onStall: expected one of "wait", "/),
    "serve.yaml:4:3: outgoing.concurent: there is no such key",
    expect.stringMatching(
      /^serve\.yaml:8:3: incoming\.listen: Not an address: "nowhere" \(the port is missing/,
    ),
    "serve.yaml:9:1: colour: there is no such key",
  ]);
});

test.each([
  ["a list", "- 1\n", /^serve\.yaml: the file: /],
  ["text", "hello\n", /^serve\.yaml: the file: /],
  ["a part that is a list", "link: [1]\n", /^serve\.yaml:1:1: link: /],
  ["broken YAML", "link:\n  rate: '100mbit\n", /^serve\.yaml:\d+:\d+: /],
  ["a key twice", "log: {}\nlog: {}\n", /^serve\.yaml:2:1: Map keys must be unique/],
  ["a tab", "link:\n\trate: 1mbit\n", /^serve\.yaml:2:\d+: /],
  ["a rate of nothing", "link: { rate: 0mbit }\n", /^serve\.yaml:1:9: link\.rate: .*above zero/],
  [
    "a time of nothing",
    "outgoing: { maxTime: 0s }\n",
    /^serve\.yaml:1:13: outgoing\.maxTime: Must be above zero/,
  ],
])("%s is refused", (_what, text, said) => {
  expect(mistakes(text)[0]).toMatch(said);
});

test("what would expand without bounds is refused", () => {
  const levels = Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i},`.repeat(9)}]`);
  expect(mistakes(`a0: &a0 [x]\n${levels.join("\n")}\n`)[0]).toMatch(/alias/i);
});

test("hundreds of mistakes are told of by the first ones and their number", () => {
  const text = Array.from({ length: 300 }, (_, i) => `key${i}: 1`).join("\n");
  const said = mistakes(text);
  expect(said).toHaveLength(21);
  expect(said.at(-1)).toBe("and 280 more");
});

test("a file that is not there, or is none, is named", () => {
  const folder = mkdtempSync(join(tmpdir(), "deltavee-settings-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  expect(() => readSettings(join(folder, "none.yaml"))).toThrow(/Cannot read .*none\.yaml: ENOENT/);
  expect(() => readSettings(folder)).toThrow(/Cannot read .*EISDIR/);
  writeFileSync(join(folder, "long.yaml"), "#".repeat(2 ** 20 + 1));
  expect(() => readSettings(join(folder, "long.yaml"))).toThrow(/longer than/);
});

test("the default file says what is so without a file, and names every key", () => {
  const text = defaultFileText();
  expect(parseSettings(text, "/x/serve.yaml")).toEqual(parseSettings("", "/x/serve.yaml"));
  for (const { key } of describeSettings()) {
    expect(text).toMatch(new RegExp(`^ *(# )?${key.split(".").at(-1)}:`, "m"));
  }
  expect(describeSettings().length).toBeGreaterThan(25);
});

test("the JSON Schema has every key with its description", () => {
  const schema = JSON.stringify(settingsJsonSchema());
  for (const { description } of describeSettings()) expect(schema).toContain(JSON.stringify(description));
});
