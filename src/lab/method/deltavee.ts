// Deltavee's two modes, as an operator starts them: the built program's own commands, each a process at its host.
//
// QEMU's downtime limit is Deltavee's to steer, so that raising it from outside would mean nothing. What an operator has
// instead is SIGUSR2: any downtime will do, from now on. It is sent at the very moment at which the limit of QEMU's own
// methods is raised. One difference remains, and costs Deltavee time: it never stops a guest in the first pass, but
// after it, where QEMU stops it at once for all that was never sent.

import { DeltaveeError } from "../../base/errors.ts";
import { type CliRun, runCli } from "../host-process.ts";
import { type Method, type MigrationEnd, netnsOption } from "./method.ts";
import { incomingUri } from "./stock.ts";

const CANCEL_TIMEOUT_MS = 30_000;
const LISTENING_TIMEOUT_MS = 30_000;
/** Of `deltavee migrate`, when the operator has given up. */
const EXIT_CANCELLED = 130;
/** A destination that has the guest has little left to say. */
const RECEIVE_GRACE_MS = 20_000;

/** `migrateArguments`: more of them for `deltavee migrate`. */
export function deltaveeMethod(
  mode: "direct" | "tunnel",
  title: string,
  migrateArguments: readonly string[] = [],
): Method {
  return {
    name: mode,
    title,
    mode,
    sends: "delta",
    prepare: async (setting) => {
      const { source, destination, link, recordFile, stateFolder, started } = setting;
      const state = stateFolder === undefined ? [] : ["--state-dir", stateFolder];
      // Nobody else is on the link of a lab; QEMU's own methods go in plain text, too.
      const security = mode === "tunnel" ? ["--insecure-plaintext"] : [];
      let receive: CliRun | undefined;
      let to = incomingUri(link);
      if (mode === "direct") {
        await destination.qmp.execute("migrate-incoming", { uri: to });
      } else {
        const listen = `${link.destinationAddress}:${link.destinationPort}`;
        receive = await runCli(
          ["receive", "--listen", listen, "--qmp", destination.toolQmp.path, ...state, ...security, "--json"],
          netnsOption(link.destinationNetns),
        );
        started("destination", receive);
        await listening(receive);
        to = `deltavee://${listen}`;
      }
      return async () => {
        const { clock, forceAfterMs, limitMs } = setting;
        const startMs = clock.nowMs();
        const migrate = await runCli(
          [
            ...["migrate", "--qmp", source.toolQmp.path, "--to", to, "--quiet"],
            ...["--max-downtime", `${setting.downtimeMsMax}ms`],
            ...(recordFile === undefined ? [] : ["--record", recordFile]),
            ...[...state, ...security, ...migrateArguments],
          ],
          netnsOption(link.sourceNetns),
        );
        started("source", migrate);
        let forcedAtMs: number | undefined;
        const timers = [
          clock.after(limitMs, () => migrate.kill("SIGINT")),
          // What cannot be taken back any more cannot be cancelled either, and must come to an end all the same.
          clock.after(limitMs + CANCEL_TIMEOUT_MS, () => migrate.kill("SIGKILL")),
        ];
        if (forceAfterMs !== undefined) {
          const force = () => {
            forcedAtMs = clock.nowMs() - startMs;
            migrate.kill("SIGUSR2");
          };
          timers.push(clock.after(forceAfterMs, force));
        }
        const { code, signal } = await migrate.exited;
        for (const cancel of timers) cancel();
        const end: MigrationEnd = {
          arrived: code === 0,
          ...(forcedAtMs === undefined ? {} : { forcedAtMs }),
        };
        if (code === EXIT_CANCELLED) return end;
        if (code !== 0) {
          throw failedCommand("migrate", code, signal, migrate.stderrTail());
        }
        if (receive !== undefined) await goodEnd(receive);
        return end;
      };
    },
  };
}

export const DELTAVEE_METHODS: readonly Method[] = [
  deltaveeMethod("direct", "Deltavee: direct"),
  deltaveeMethod("tunnel", "Deltavee: tunnel"),
];

async function listening(receive: CliRun): Promise<void> {
  const isListening = ({ text }: { text: string }) => {
    const said: { type?: string; event?: string } = JSON.parse(text);
    return said.type === "listening" || said.event === "listening";
  };
  await receive.stdout.waitFor(isListening, "that it listens", { timeoutMs: LISTENING_TIMEOUT_MS });
}

async function goodEnd(receive: CliRun): Promise<void> {
  const timer = setTimeout(() => receive.kill("SIGKILL"), RECEIVE_GRACE_MS);
  const { code, signal } = await receive.exited;
  clearTimeout(timer);
  if (code === 0) return;
  throw failedCommand("receive", code, signal, receive.stderrTail());
}

function failedCommand(
  name: string,
  code: number | null,
  signal: string | null,
  said: string,
): DeltaveeError {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
  return new DeltaveeError("MIGRATION_FAILED", `deltavee ${name} ended with ${how}: ${said}`);
}
