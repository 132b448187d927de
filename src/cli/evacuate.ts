// `deltavee evacuate`: has the service of this host move VMs to another one, and waits until all of them have moved.

import { Command } from "commander";
import { type DeltaveeError, UsageError } from "../base/errors.ts";
import { parseDestination } from "../library/parse-address.ts";
import { WEIGHT_MAX, WEIGHT_MIN } from "../link/fair-schedule.ts";
import { errorOf, type MigrationRequest } from "../service/control-api.ts";
import type { ControlClient } from "../service/control-client.ts";
import type { MoveView } from "../service/move.ts";
import { onInterrupt } from "./common.ts";
import { exitCodeOf } from "./failure.ts";
import { absolute, clientOf, moveText, type ServiceOptions, withServiceOptions } from "./service.ts";

interface Options extends ServiceOptions {
  to: string;
  weight?: number;
  tlsHostname?: string;
  maxDowntime?: string;
  maxTime?: string;
  maxBytes?: string;
  maxBandwidth?: string;
  onStall?: string;
  wait: boolean;
}

const POLL_MS = 500;

const HELP = `
Each VM is named by the QMP monitor of its QEMU, with a weight of its own behind "=" where it is to have one. All VMs
that leave a host share its link.rate by weight: one of weight 3 gets three times what one of weight 1 gets.

They are moved so many at a time as outgoing.concurrent says, in the order in which they are named. What is not said
here is as the service's configuration has it. Ctrl-C ends the waiting, and the migrations go on in the service.

Exit codes: 0 all have moved, else that of the first that has not (see deltavee migrate --help), 2 wrong usage.

Examples:
  deltavee evacuate --to deltavee://host2:4445 /run/vms/*.qmp
  deltavee evacuate --to deltavee://host2:4445 --max-downtime 100ms /run/vms/db.qmp=3 /run/vms/web.qmp
`;

export function evacuateCommand(): Command {
  return withServiceOptions(
    new Command("evacuate")
      .description("have deltavee serve move VMs of this host to another one")
      .argument("<vm...>", "QMP monitor, or QMP=WEIGHT")
      .requiredOption("--to <address>", "as deltavee migrate --to: where all of them go")
      .option("--weight <number>", "share of the link, of those that have none of their own", parseWeight)
      .option("--tls-hostname <name>", "as deltavee migrate --tls-hostname")
      .option("--max-downtime <duration>", "as deltavee migrate, for each")
      .option("--max-time <duration>", "as deltavee migrate, for each")
      .option("--max-bytes <size>", "as deltavee migrate, for each")
      .option("--max-bandwidth <rate>", "as deltavee migrate, for each, within its share")
      .option("--on-stall <policy>", "as deltavee migrate, for each")
      .option("--no-wait", "do not wait until they have moved"),
  )
    .addHelpText("after", HELP)
    .action(evacuate);
}

async function evacuate(vms: readonly string[], options: Options): Promise<void> {
  if (parseDestination(options.to).kind !== "deltavee" && vms.length > 1) {
    throw new UsageError(`A stock QEMU (--to ${options.to}) takes in one VM: name one by each command`);
  }
  const wishes = vms.map((vm) => wishFor(vm, options));
  const client = clientOf(options);
  const say = (move: MoveView) =>
    process.stdout.write(options.json ? `${JSON.stringify(move)}\n` : `${moveText(move)}\n`);
  const ids: string[] = [];
  const refused: DeltaveeError[] = [];
  for (const wish of wishes) {
    try {
      const move = await client.migrate(wish);
      ids.push(move.id);
      if (!options.wait) say(move);
    } catch (thrown) {
      const error = thrown as DeltaveeError;
      // Nobody is there, or it is going: the others would hear the same.
      if (error.code === "SERVICE_UNREACHABLE" || error.code === "SERVICE_STOPPING") throw thrown;
      refused.push(error);
      process.stderr.write(`deltavee: ${wish.qmp}: ${error.code}: ${error.message}\n`);
    }
  }
  const ended = options.wait ? await waitFor(client, ids, say) : [];
  const failed = [
    ...refused,
    ...ended.flatMap(({ error }) => (error === undefined ? [] : [errorOf({ error })])),
  ];
  if (failed[0] !== undefined) process.exitCode = exitCodeOf(failed[0]);
}

/** Says of each how it ended, as it does. Resolves with those that have, when all have or the operator has had enough. */
async function waitFor(
  client: ControlClient,
  ids: readonly string[],
  say: (move: MoveView) => void,
): Promise<readonly MoveView[]> {
  const waiting = new Set(ids);
  const ended: MoveView[] = [];
  let hasEnough = false;
  const release = onInterrupt(() => {
    hasEnough = true;
  });
  try {
    while (waiting.size > 0 && !hasEnough) {
      const known = new Map((await client.migrations()).map((move) => [move.id, move]));
      for (const id of waiting) {
        const move = known.get(id);
        if (move === undefined) throw new UsageError(`The service does not know of migration ${id} any more`);
        if (move.endedAt === undefined) continue;
        waiting.delete(id);
        ended.push(move);
        say(move);
      }
      if (waiting.size > 0) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    release();
  }
  if (hasEnough && waiting.size > 0) {
    process.stderr.write(
      `deltavee: ${waiting.size} migrations go on in the service (deltavee service list, deltavee service cancel)\n`,
    );
  }
  return ended;
}

function wishFor(vm: string, options: Options): MigrationRequest {
  const match = /^(.*)=([^=/]*)$/.exec(vm);
  const weight = match === null ? options.weight : parseWeight(match[2]!);
  const { to, tlsHostname, maxDowntime, maxTime, maxBytes, maxBandwidth, onStall } = options;
  const given = { weight, tlsHostname, maxDowntime, maxTime, maxBytes, maxBandwidth, onStall };
  const said = Object.entries(given).filter(([, value]) => value !== undefined);
  return { qmp: absolute(match?.[1] ?? vm), to, ...Object.fromEntries(said) };
}

function parseWeight(text: string): number {
  const weight = Number(text);
  if (text !== "" && weight >= WEIGHT_MIN && weight <= WEIGHT_MAX) return weight;
  throw new UsageError(`Not a weight: "${text}" (a number from ${WEIGHT_MIN} to ${WEIGHT_MAX})`);
}
