// Client program: writes to a Redis in the guest, and checks what it has acknowledged (redis-load-watch.ts).

import { runClient } from "./protocol.ts";
import { watchRedisLoad } from "./redis-load-watch.ts";

await runClient(watchRedisLoad);
