// What can be asked for over the control socket, and what is done about it.

import { UsageError } from "../base/errors.ts";
import { parseBytes, parseBytesPerSecond, parseMs } from "../base/units.ts";
import { version } from "../base/version.ts";
import { parseStallPolicy } from "../library/parse.ts";
import { parseDestination, parseQmpAddress } from "../library/parse-address.ts";
import { formatAddress } from "../link/address.ts";
import { WEIGHT_MAX, WEIGHT_MIN } from "../link/fair-schedule.ts";
import { monitorName } from "../state/keep.ts";
import {
  type MigrationRequest,
  type MigrationsAnswer,
  migrationRequestSchema,
  parseRequest,
  type ServiceAnswer,
  type VmAnswer,
  type VmsAnswer,
  vmRequestSchema,
} from "./control-api.ts";
import type { Answer, ControlRoutes } from "./control-server.ts";
import type { IncomingVms, WaitingVm } from "./incoming.ts";
import type { MoveView } from "./move.ts";
import { orderFor, type QemuMoves, type QemuWish, waitingAt } from "./qemu.ts";
import type { Service } from "./service.ts";

export function controlRoutes(service: Service, moves: QemuMoves): ControlRoutes {
  const { settings } = moves;
  const incoming = (): IncomingVms => {
    if (service.incoming !== undefined) return service.incoming;
    throw new UsageError("This service takes no VM in: its configuration says no incoming.listen");
  };
  return {
    "GET /v1/service": () => {
      const { rate } = settings.link;
      const listen = service.incoming === undefined ? undefined : formatAddress(service.incoming.address);
      const answer: ServiceAnswer = {
        deltavee: version,
        state: service.isStopping ? "stopping" : "running",
        ...(listen === undefined ? {} : { listen }),
        ...(rate === undefined ? {} : { linkBytesPerSecond: rate }),
        running: service.runningCount,
        queued: service.outgoing.queuedCount,
      };
      return ok(answer);
    },
    "GET /v1/migrations": () => ok({ migrations: service.moves } satisfies MigrationsAnswer),
    "GET /v1/migrations/:": (id) => ok(known(service.find(id), id)),
    "POST /v1/migrations": async (_none, body) => {
      const wish = wishOf(parseRequest(migrationRequestSchema, body));
      return { status: 201, body: service.outgoing.add(await orderFor(wish, moves)) };
    },
    "DELETE /v1/migrations/:": (id) => ok(known(service.cancel(id), id)),
    "GET /v1/vms": () => ok({ vms: incoming().prepared.map(vmAnswer) } satisfies VmsAnswer),
    "POST /v1/vms": async (_none, body) => {
      const { qmp, name } = parseRequest(vmRequestSchema, body);
      const vms = incoming();
      const vm = await waitingAt(parseQmpAddress(qmp), name, moves);
      vms.prepare(vm);
      return { status: 201, body: vmAnswer(vm) };
    },
    "DELETE /v1/vms/:": (qmp) => {
      const key = monitorName(parseQmpAddress(qmp));
      if (!incoming().forget(key)) throw new UsageError(`No VM is waited for at ${key}`);
      return ok({ qmp: key } satisfies VmAnswer);
    },
  };
}

function ok(body: unknown): Answer {
  return { status: 200, body };
}

function known(view: MoveView | undefined, id: string): MoveView {
  if (view !== undefined) return view;
  throw new UsageError(`There is no migration ${id}`);
}

function vmAnswer({ key, names }: WaitingVm): VmAnswer {
  return { qmp: key, ...names };
}

/** @throws UsageError that names the member of the request */
function wishOf(request: MigrationRequest): QemuWish {
  const { weight } = request;
  if (weight !== undefined && !(weight >= WEIGHT_MIN && weight <= WEIGHT_MAX)) {
    throw new UsageError(`weight: Must be from ${WEIGHT_MIN} to ${WEIGHT_MAX}: ${weight}`);
  }
  const read = <Value>(name: keyof MigrationRequest, parse: (text: string) => Value): Value | undefined => {
    const text = request[name];
    if (typeof text !== "string") return undefined;
    try {
      return parse(text);
    } catch (thrown) {
      if (!(thrown instanceof UsageError)) throw thrown;
      throw new UsageError(`${name}: ${thrown.message}`);
    }
  };
  return {
    qmp: read("qmp", parseQmpAddress)!,
    to: read("to", parseDestination)!,
    tlsHostname: request.tlsHostname,
    weight,
    linkBytesPerSecondMax: read("maxBandwidth", parseBytesPerSecond),
    downtimeMsMax: read("maxDowntime", aboveZero(parseMs)),
    timeMsMax: read("maxTime", aboveZero(parseMs)),
    wireBytesMax: read("maxBytes", aboveZero(parseBytes)),
    onStall: read("onStall", parseStallPolicy),
  };
}

function aboveZero(parse: (text: string) => number): (text: string) => number {
  return (text) => {
    const value = parse(text);
    if (value > 0) return value;
    throw new UsageError(`Must be above zero: "${text}"`);
  };
}
