// A scenario that is one client and what it sees: most are.

import type { Activity, Client } from "../model.ts";

/** `afterMs`: how long it goes on after the guest was moved, before its client is asked. */
export function clientActivity(client: Client, afterMs: number): Activity {
  return {
    migrationBegins: () => client.tell("migration-begins"),
    migrationEnded: () => client.tell("migration-ended"),
    afterMs,
    finish: () => client.finish(),
  };
}
