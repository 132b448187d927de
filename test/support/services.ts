// `deltavee serve` as its operator has it, at several "hosts" on one machine, and the command line that speaks to them.
// Everything ends, and is removed, with `stop`.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CliRun, runCli, tempFolder } from "./processes.ts";

export const READY_MS = 180_000;

export interface Site {
  readonly run: CliRun;
  /** Its control socket. */
  readonly socket: string;
  readonly listen: string;
  /** Of the live page and the metrics. */
  readonly url: string;
  metrics(): Promise<string>;
  /** Lines of its log, as objects. */
  log(): Record<string, unknown>[];
}

export interface Services {
  readonly folder: string;
  /** Resolves when it is ready. What it is not told is as by default, on ports that are free. */
  serve(name: string, settings: Record<string, unknown>): Promise<Site>;
  /** Another command, to its end. */
  cli(...words: string[]): Promise<{ code: number | null; out: string; err: string }>;
  stop(): Promise<void>;
}

export function openServices(): Services {
  const folder = tempFolder();
  const runs: CliRun[] = [];
  const start = async (...words: string[]) => {
    const run = await runCli(words);
    runs.push(run);
    return run;
  };
  return {
    folder: folder.path,
    async serve(name, settings) {
      const file = join(folder.path, `${name}.yaml`);
      writeFileSync(file, JSON.stringify({ stateDir: name, http: { listen: "127.0.0.1:0" }, ...settings }));
      const run = await start("serve", "--config", file);
      const isReady = ({ text }: { text: string }) => text.includes('"event":"ready"');
      const ready = await run.stderr.waitFor(isReady, "ready", { timeoutMs: READY_MS });
      const { control, listen = "", url } = JSON.parse(ready.text) as Record<string, string>;
      return {
        run,
        socket: control!,
        listen,
        url: url!,
        metrics: async () => (await fetch(new URL("metrics", url))).text(),
        log: () => run.stderr.lines.map(({ text }) => JSON.parse(text) as Record<string, unknown>),
      };
    },
    async cli(...words) {
      const run = await start(...words);
      const { code } = await run.exited;
      const out = run.stdout.lines.map(({ text }) => text).join("\n");
      return { code, out, err: run.stderrTail() };
    },
    async stop() {
      for (const run of runs) await run.stop();
      folder.remove();
    },
  };
}
