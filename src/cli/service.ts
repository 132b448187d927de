// `deltavee service`: asks a running `deltavee serve` of this host, over its control socket.

import { resolve } from "node:path";
import { Command } from "commander";
import { formatBytes, formatBytesPerSecond, formatMs } from "../base/units.ts";
import { parseQmpAddress } from "../library/parse-address.ts";
import { ControlClient } from "../service/control-client.ts";
import type { MoveView } from "../service/move.ts";
import { defaultControlPath } from "../service/run-service.ts";
import { monitorName } from "../state/keep.ts";

export interface ServiceOptions {
  service?: string;
  json?: true;
}

const HELP = `
Examples:
  deltavee service list
  deltavee service cancel 3f9a01c2
  qemu-system-x86_64 ... -name web-1 -incoming defer -qmp unix:/run/vms/web-1.qmp,server=on,wait=off
  deltavee service prepare /run/vms/web-1.qmp
`;

const PREPARE_HELP = `
Example:
  qemu-system-x86_64 ... -name web-1 -incoming defer -qmp unix:/run/vms/web-1.qmp,server=on,wait=off
  deltavee service prepare /run/vms/web-1.qmp
`;

export function serviceCommand(): Command {
  const command = new Command("service").description("ask the deltavee serve of this host");
  withServiceOptions(command.command("list"))
    .description("the service, its migrations, and the VMs that it waits for")
    .addHelpText("after", "\nExample:\n  deltavee service list --json\n")
    .action(list);
  withServiceOptions(command.command("cancel"))
    .description("give migrations up: each guest goes on at its source, where that can still be")
    .argument("<id...>", "as deltavee service list names them")
    .addHelpText("after", "\nExample:\n  deltavee service cancel 3f9a01c2\n")
    .action(cancel);
  withServiceOptions(command.command("prepare"))
    .description("have VMs awaited: each a QEMU that was started with -incoming defer")
    .argument("<qmp...>", "its QMP monitor")
    .option("--name <name>", "what its source calls it, if not what QEMU here does (one VM only)")
    .addHelpText("after", PREPARE_HELP)
    .action(prepare);
  withServiceOptions(command.command("forget"))
    .description("have VMs no longer awaited")
    .argument("<qmp...>", "its QMP monitor")
    .addHelpText("after", "\nExample:\n  deltavee service forget /run/vms/web-1.qmp\n")
    .action(forget);
  return command.addHelpText("after", HELP);
}

export function withServiceOptions(command: Command): Command {
  return command
    .option("--service <socket>", "control socket of the service (default: that of this user's state folder)")
    .option("--json", "print what is known as JSON");
}

export function clientOf({ service }: ServiceOptions): ControlClient {
  return new ControlClient(service === undefined ? defaultControlPath() : resolve(service));
}

async function list(options: ServiceOptions): Promise<void> {
  const client = clientOf(options);
  const service = await client.service();
  const [migrations, vms] = await Promise.all([
    client.migrations(),
    service.listen === undefined ? [] : client.vms(),
  ]);
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ service, migrations, vms })}\n`);
    return;
  }
  const { deltavee, state, listen, linkBytesPerSecond, running, queued } = service;
  const lines = [
    `Deltavee ${deltavee}, ${state}: ${running} under way, ${queued} waiting`,
    ...(listen === undefined ? [] : [`  takes VMs in at ${listen}`]),
    ...(linkBytesPerSecond === undefined
      ? []
      : [`  shares ${formatBytesPerSecond(linkBytesPerSecond)} among those that leave`]),
    ...migrations.map(moveText),
    ...vms.map(({ qmp, name, uuid }) => `awaited   ${name ?? uuid ?? "?"}, at ${qmp}`),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

async function cancel(ids: readonly string[], options: ServiceOptions): Promise<void> {
  const client = clientOf(options);
  for (const id of ids) show(options, await client.cancel(id), moveText);
}

async function prepare(
  qmps: readonly string[],
  options: ServiceOptions & { name?: string },
  command: Command,
): Promise<void> {
  if (options.name !== undefined && qmps.length > 1) command.error("error: --name is for one VM");
  const client = clientOf(options);
  for (const qmp of qmps) {
    const wish = { qmp: absolute(qmp), ...(options.name === undefined ? {} : { name: options.name }) };
    show(options, await client.prepare(wish), (vm) => `awaited   ${vm.name ?? vm.uuid ?? "?"}, at ${vm.qmp}`);
  }
}

async function forget(qmps: readonly string[], options: ServiceOptions): Promise<void> {
  const client = clientOf(options);
  for (const qmp of qmps) show(options, await client.forget(absolute(qmp)), (vm) => `forgotten ${vm.qmp}`);
}

/** The service has a working folder of its own. @throws UsageError */
export function absolute(qmp: string): string {
  return monitorName(parseQmpAddress(qmp));
}

function show<Value>({ json }: ServiceOptions, value: Value, text: (value: Value) => string): void {
  process.stdout.write(`${json ? JSON.stringify(value) : text(value)}\n`);
}

/** One migration in one line, and its error in another. */
export function moveText(move: MoveView): string {
  const { id, side, vm, peer, weight, state, phase, error, where } = move;
  const way = side === "source" ? `to ${peer}` : `from ${peer}`;
  const parts = [
    `${state.padEnd("completed".length)} ${id}  ${vm} ${way}`,
    ...(weight === undefined || weight === 1 ? [] : [`weight ${weight}`]),
    ...(state === "running" && phase !== undefined ? [phase] : []),
    ...progressParts(move),
  ];
  const ending = error === undefined ? [] : [`          ${error.code}: ${error.message}`];
  if (where !== undefined && state !== "completed") ending.push(`          the VM is: ${where}`);
  return [parts.join(", "), ...ending].join("\n");
}

function progressParts(move: MoveView): string[] {
  const { state, wireBytes, remainingBytes, linkBytesPerSecond, totalMs, downtimeMs } = move;
  if (state === "running") {
    return [
      ...(wireBytes === undefined ? [] : [`${formatBytes(wireBytes)} sent`]),
      ...(remainingBytes === undefined ? [] : [`${formatBytes(remainingBytes)} left`]),
      ...(linkBytesPerSecond ? [formatBytesPerSecond(linkBytesPerSecond)] : []),
    ];
  }
  return [
    ...(totalMs === undefined ? [] : [`after ${formatMs(totalMs)}`]),
    ...(downtimeMs === undefined || state !== "completed" ? [] : [`downtime ${formatMs(downtimeMs)}`]),
  ];
}
