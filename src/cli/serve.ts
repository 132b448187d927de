// `deltavee serve`: the service of a host. Takes migrations out and in, several at a time, until it is told to stop.

import { Command } from "commander";
import { version } from "../base/version.ts";
import { Log } from "../service/log.ts";
import { startService } from "../service/run-service.ts";
import type { Settings } from "../service/settings.ts";
import { parseSettings, readSettings } from "../service/settings-file.ts";

interface Options {
  config?: string;
}

const HELP = `
Without --config everything is as "deltavee config print-default" shows it: no VM is taken in, the page with the metrics
is on 127.0.0.1:9437, and the control socket is in the state folder.

VMs leave by "deltavee evacuate", and are awaited by "deltavee service prepare". All that leaves shares link.rate by
weight. On SIGTERM or Ctrl-C nothing new is taken, and what is under way may finish for as long as shutdown.graceTime
says; a second signal cancels it at once: each guest goes on at its source.

Exit codes: 0 stopped in good order, 1 failed, 2 wrong usage or configuration.

Examples:
  deltavee config print-default > serve.yaml
  deltavee serve --config serve.yaml
`;

export function serveCommand(): Command {
  return new Command("serve")
    .description("migrate VMs of this host, out and in, as they are asked for")
    .option("--config <file>", "settings (YAML): see deltavee config")
    .addHelpText("after", HELP)
    .action(serve);
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

async function serve({ config }: Options): Promise<void> {
  const settings = config === undefined ? parseSettings("", "serve.yaml") : readSettings(config);
  const log = openLog(settings);
  const running = await startService(settings, log);
  const { controlPath, listen, url, service } = running;
  const where = [
    `control socket ${controlPath}`,
    ...(listen === undefined ? [] : [`sources at ${listen}`]),
    ...(url === undefined ? [] : [`page and metrics at ${url}`]),
  ];
  log.say("info", "ready", `Ready: ${where.join(", ")}`, {
    deltavee: version,
    control: controlPath,
    listen,
    url,
  });

  await new Promise<void>((resolve, reject) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals) => {
      signals++;
      if (signals === 1) {
        const count = service.runningCount;
        log.say("info", "stopping", `${signal}: no more is taken; ${count} migrations under way may finish`, {
          running: count,
        });
        running.stop().then(resolve, reject);
      } else if (signals === 2) {
        const count = service.runningCount;
        log.say("warning", "stopping", `${signal} again: ${count} migrations under way are cancelled`, {
          running: count,
        });
        service.cancelAll();
      }
    };
    for (const signal of SIGNALS) process.on(signal, onSignal);
  });
  log.say("info", "stopped", "Stopped");
}

function openLog({ log }: Settings): Log {
  const isText = log.format === "text" || (log.format === "auto" && process.stderr.isTTY);
  return new Log({
    format: isText ? "text" : "json",
    level: log.level,
    write: (line) => process.stderr.write(line),
  });
}
