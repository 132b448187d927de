// The door of `deltavee proxy` at a TCP port of this host: who is heard there at all.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import type { Address } from "../../link/address.ts";
import { Doorway } from "./doorway.ts";

/** QEMU's, of a stream's first bytes: magic, version 3, and the section that its configuration is. */
const OPENING = "5145564d00000003070000000d";
const NOBODY_UID = 65_534;

let doorway: Doorway | undefined;
afterEach(() => doorway?.close());

/** What it has heard, or said, when a program of user `uid` has connected and said how a migration begins. */
async function knock(allowedUids: readonly number[] | undefined, uid?: number): Promise<string> {
  const said = new Promise<string>((resolve) => {
    void Doorway.open(
      { kind: "tcp", host: "127.0.0.1", port: 0 },
      {
        allowedUids,
        begin: (channel) => {
          channel.destroy();
          resolve("a migration");
          return { refuse: () => {}, over: Promise.resolve() };
        },
        notice: resolve,
        refused: ({ message }) => resolve(message),
        bypassed: ({ message }) => resolve(message),
      },
    ).then((opened) => {
      doorway = opened;
      const { port } = opened.address as Extract<Address, { kind: "tcp" }>;
      const script = `
        const socket = require("net").connect(${port}, "127.0.0.1", () => socket.write(Buffer.from("${OPENING}".padEnd(400, "0"), "hex")));
        socket.on("error", () => {}); socket.on("close", () => process.exit());`;
      const child = spawn(process.execPath, ["-e", script], {
        ...(uid === undefined ? {} : { uid }),
        stdio: "ignore",
        cwd: "/",
      });
      ended = once(child, "exit");
    });
  });
  const what = await said;
  await ended;
  return what;
}
let ended: Promise<unknown> = Promise.resolve();

const own = process.geteuid!();

describe.skipIf(process.platform !== "linux")("the door at a TCP port", () => {
  test("whoever is allowed is heard", async () => {
    expect(await knock([own])).toBe("a migration");
  });

  test("nobody else is, whatever he says", async () => {
    expect(await knock([own + 1])).toMatch(
      new RegExp(`^A connection of user ${own} was turned away: --allow-user`),
    );
  });

  test("where everybody is allowed nobody is asked", async () => {
    expect(await knock(undefined)).toBe("a migration");
  });

  test.skipIf(own !== 0)("another user of this host is turned away, until he is named", async () => {
    expect(await knock([0], NOBODY_UID)).toContain(`user ${NOBODY_UID} was turned away`);
    doorway?.close();
    expect(await knock([0, NOBODY_UID], NOBODY_UID)).toBe("a migration");
  });
});
