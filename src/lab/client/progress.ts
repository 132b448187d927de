// Client program: watches a program in the guest that says how far it has come (progress-watch.ts).

import { watchProgress } from "./progress-watch.ts";
import { runClient } from "./protocol.ts";

await runClient(watchProgress);
