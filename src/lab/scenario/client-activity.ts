// A scenario that is one client and what it sees: most are.

import { setTimeout as sleep } from "node:timers/promises";
import type { Activity, Client } from "../model.ts";

/** `afterMs`: how long it goes on after the guest was moved, before its client is asked. */
export function clientActivity(client: Client, afterMs: number): Activity {
  return {
    migrationBegins: () => client.tell("migration-begins"),
    migrationEnded: () => client.tell("migration-ended"),
    finish: async () => {
      await sleep(afterMs);
      return client.finish();
    },
  };
}
