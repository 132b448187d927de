// The service of a host, put together: its settings, what it moves VMs of QEMU with, its control socket, its page with the
// metrics. Runs until it is told to stop, and everything that it had begun has come to its end.

import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { version } from "../base/version.ts";
import { type AllowRule, checkRules, parseAllow } from "../library/admission.ts";
import { chooseIdentity, isLoopback, PLAINTEXT_NOTICE } from "../library/identity.ts";
import { formatAddress } from "../link/address.ts";
import { FairLink } from "../link/fair-link.ts";
import { Metrics } from "../metrics/metrics.ts";
import { defaultStateFolder, StateFolder } from "../state/state-folder.ts";
import { serveLivePage } from "../web/live-page.ts";
import { RunBoard } from "../web/run-board.ts";
import { controlRoutes } from "./control-routes.ts";
import { ControlServer } from "./control-server.ts";
import { IncomingVms } from "./incoming.ts";
import type { Log } from "./log.ts";
import { OutgoingMoves } from "./outgoing.ts";
import { findWaiting, type QemuMoves, securityOf } from "./qemu.ts";
import { Runs } from "./runs.ts";
import { Service } from "./service.ts";
import type { Settings } from "./settings.ts";

const CONTROL_SOCKET = "control.sock";
/** More than passes between two questions of deltavee evacuate. */
const LAST_ANSWERS_MS = 1500;

/** Where the control socket is unless it is said. */
export function defaultControlPath(stateDir: string = defaultStateFolder()): string {
  return join(stateDir, CONTROL_SOCKET);
}

export interface RunningService {
  readonly controlPath: string;
  /** Where sources connect to; undefined: nowhere. */
  readonly listen: string | undefined;
  /** Of the live page and /metrics; undefined: there is none. */
  readonly url: string | undefined;
  readonly service: Service;
  /** Takes nothing new, waits as long as the settings say, cancels what is left. Resolves when all is over and closed. */
  stop(): Promise<void>;
}

/** What would keep these settings from working, as far as can be told beforehand. @throws UsageError, TlsError */
export function checkSettings(settings: Settings): void {
  incomingSecurity(settings);
}

/** @throws DeltaveeError when something of it cannot be had; nothing is left behind then */
export async function startService(settings: Settings, log: Log): Promise<RunningService> {
  const security = incomingSecurity(settings);
  const closers: (() => unknown)[] = [];
  const closeAll = async () => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    const board = new RunBoard();
    const metrics = new Metrics({ version, hasVmNames: settings.metrics.vmNames });
    const runs = new Runs({ board, metrics, log, folder: settings.recordDir });
    const { rate } = settings.link;
    const link = rate === undefined ? undefined : new FairLink(systemClock, rate);
    const moves: QemuMoves = { settings, runs, link };
    const incoming = await listenForVms(settings, security, moves, log);
    if (incoming !== undefined) closers.push(() => incoming.close());
    const service = new Service({
      outgoing: new OutgoingMoves(settings.outgoing),
      incoming,
      clock: systemClock,
    });
    metrics.watchService({
      queued: () => service.outgoing.queuedCount,
      linkLimitBytesPerSecond: rate,
    });
    const controlPath =
      settings.control ??
      defaultControlPath(StateFolder.create(settings.stateDir ?? defaultStateFolder()).path);
    const notice = (text: string) => log.say("warning", "service", text);
    const control = await ControlServer.listen(controlPath, controlRoutes(service, moves), notice);
    closers.push(() => control.close());
    const url = await servePage(settings, { board, metrics, log, closers });
    return {
      controlPath,
      listen: incoming === undefined ? undefined : formatAddress(incoming.address),
      url,
      service,
      async stop() {
        const wasBusy = service.runningCount > 0;
        await service.stop(settings.shutdown.graceTime);
        // Whoever waits for one of them asks a last time.
        if (wasBusy) await new Promise((resolve) => setTimeout(resolve, LAST_ANSWERS_MS));
        await closeAll();
      },
    };
  } catch (thrown) {
    await closeAll();
    throw thrown;
  }
}

interface IncomingSecurity {
  readonly identity: ReturnType<typeof chooseIdentity>;
  readonly rules: readonly AllowRule[];
}

/** Undefined: no VM is taken in. */
function incomingSecurity(settings: Settings): IncomingSecurity | undefined {
  const { listen, allow } = settings.incoming;
  if (listen === undefined) return undefined;
  const identity = chooseIdentity(listen, "server", securityOf(settings));
  const rules = allow.reduce<AllowRule[]>((before, rule) => parseAllow(rule, before), []);
  checkRules(rules, identity !== undefined);
  return { identity, rules };
}

async function listenForVms(
  settings: Settings,
  security: IncomingSecurity | undefined,
  moves: QemuMoves,
  log: Log,
): Promise<IncomingVms | undefined> {
  const { listen, concurrent } = settings.incoming;
  if (listen === undefined || security === undefined) return undefined;
  if (security.identity === undefined && !isLoopback(listen)) log.say("warning", "service", PLAINTEXT_NOTICE);
  return IncomingVms.listen({
    listen,
    ...security,
    concurrent,
    find: (names) => findWaiting(names, moves),
    notice: (text) => log.say("warning", "incoming", text),
  });
}

async function servePage(
  { http }: Settings,
  {
    board,
    metrics,
    log,
    closers,
  }: { board: RunBoard; metrics: Metrics; log: Log; closers: (() => unknown)[] },
): Promise<string | undefined> {
  if (!http.enabled) return undefined;
  const page = await serveLivePage({
    board,
    ...http.listen,
    hostNames: http.hostNames,
    notice: (text) => log.say("warning", "http", text),
    handlers: {
      "/metrics": async (_request, response) => {
        const text = await metrics.text();
        response.setHeader("Content-Type", metrics.registry.contentType);
        response.end(text);
      },
    },
  });
  closers.push(() => page.close());
  if (page.warning !== undefined) log.say("warning", "http", page.warning);
  return page.url;
}
