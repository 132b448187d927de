// RAM that is not to be had. What is, is compared with real QEMUs (test/e2e/verify.test.ts).

import { expect, test } from "vitest";
import type { QmpClient } from "./qmp.ts";
import { openStoppedRam } from "./stopped-ram.ts";

test("a QEMU whose process cannot be found is one whose RAM cannot be compared", async () => {
  const qmp = { address: { kind: "tcp", host: "127.0.0.1", port: 4444 } } as unknown as QmpClient;
  await expect(openStoppedRam(qmp)).rejects.toMatchObject({
    code: "VERIFY_UNAVAILABLE",
    message: expect.stringContaining("Whose monitor it is can only be seen of a unix socket"),
  });
});
