// What `deltavee proxy` refuses before it listens anywhere: each with a word on what is wrong.

import { Command } from "commander";
import { expect, test } from "vitest";
import { proxyCommand } from "./proxy.ts";

const SOURCE = ["--listen", "127.0.0.1:0", "--to", "deltavee://127.0.0.1:9"];
const DESTINATION = ["--listen", "127.0.0.1:0", "--connect", "tcp:127.0.0.1:9"];

test.each([
  [["--listen", "127.0.0.1:0"], "Either --to"],
  [[...SOURCE, "--connect", "tcp:127.0.0.1:9"], "Either --to"],
  [["--listen", "0.0.0.0:0", "--to", "tcp:host2:9"], "only this host comes in"],
  [["--listen", "127.0.0.1:0", "--to", "tcp:host2:0"], "Port 0"],
  [[...SOURCE, "--allow", "*=vm"], "--allow is for the destination"],
  [["--listen", "127.0.0.1:0", "--to", "tcp:host2:9", "--insecure-plaintext"], "TLS is for a tunnel"],
  [
    ["--listen", "127.0.0.1:0", "--to", "deltavee://host2:9", "--keys-dir", "/nowhere"],
    "has not been paired",
  ],
  [
    ["--listen", "0.0.0.0:0", "--connect", "tcp:127.0.0.1:9", "--keys-dir", "/nowhere"],
    "has not been paired",
  ],
  [["--listen", "127.0.0.1:0", "--connect", "deltavee://127.0.0.1:9"], "where QEMU waits"],
  [[...DESTINATION, "--cache-size", "1GB"], "are for the source"],
  [["--listen", "127.0.0.1:9", "--connect", "tcp:127.0.0.1:9"], "listens itself"],
  [[...DESTINATION, "--allow", "host1=web-3"], "does not tell which VM it is"],
  [[...DESTINATION, "--allow-user", "root"], "--allow-user is for the source"],
  [[...SOURCE, "--allow-user", "no such user"], "There is no user"],
  [[...SOURCE, "--max-downtime", "0s"], "above zero"],
  [[...SOURCE, "--record", "/dev/null/records"], "Cannot create the folder"],
])("%j", async (words, message) => {
  const program = new Command().exitOverride().addCommand(proxyCommand());
  const parsed = program.parseAsync(["proxy", ...words], { from: "user" });
  await expect(parsed).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining(message) });
});
