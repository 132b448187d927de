// What plans are made from besides a running guest: models and fleets (JSON), and run records to learn from.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { toError, UsageError } from "../../base/errors.ts";
import * as v from "../../base/schema.ts";
import { type Calibration, calibrate, forecastAndTruth } from "../../planner/calibration.ts";
import type { FleetGuest } from "../../planner/fleet.ts";
import { type GuestModel, guestModelSchema } from "../../planner/guest-model.ts";
import { parseRecord } from "../../record/reader.ts";

const fleetSchema = v.pipe(
  v.array(v.object({ name: v.string(), guest: guestModelSchema })),
  v.minLength(1),
  v.maxLength(10_000),
);

/** @throws UsageError */
export const readModel = (path: string): GuestModel => readJson(path, guestModelSchema);

/** @throws UsageError */
export const readFleet = (path: string): FleetGuest[] => readJson(path, fleetSchema);

/**
 * From every record of the folder that holds a forecast and the truth. Others are none to learn from; one that is no
 * record at all is told of on stderr. @throws UsageError for a folder that cannot be read
 */
export function readCalibration(folder: string): Calibration {
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => name.endsWith(".ndjson"));
  } catch (thrown) {
    throw new UsageError(`Cannot read the records in ${folder}: ${toError(thrown).message}`);
  }
  const runs = names.flatMap((name) => {
    try {
      return forecastAndTruth(parseRecord(readFileSync(join(folder, name), "utf8"), name).events) ?? [];
    } catch (thrown) {
      process.stderr.write(`deltavee: nothing is learned from ${name}: ${toError(thrown).message}\n`);
      return [];
    }
  });
  return calibrate(runs);
}

function readJson<Value>(path: string, schema: v.GenericSchema<unknown, Value>): Value {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (thrown) {
    throw new UsageError(`Cannot read ${path}: ${toError(thrown).message}`);
  }
  const checked = v.checked(schema, value);
  if (checked.mistake === undefined) return checked.value;
  throw new UsageError(`${path} is not what it should be: ${checked.mistake}`);
}
