// The journal as migrate and receive keep it: the folder as the operator has chosen it, and no reason to fail where
// it was not chosen.

import { resolve } from "node:path";
import { toError } from "../base/errors.ts";
import type { MigrationSettings } from "../hypervisor/qemu/outgoing.ts";
import type { QmpAddress } from "../hypervisor/qemu/qmp.ts";
import type { MigrationCapability } from "../hypervisor/qemu/qmp-types.ts";
import { formatAddress } from "../link/address.ts";
import {
  entryName,
  isUnderWay,
  Journal,
  type JournalEntry,
  type JournalSubject,
  knownMigrations,
} from "./journal.ts";
import { defaultStateFolder, StateFolder } from "./state-folder.ts";

export const STATE_DIR_HELP =
  "where the migrations of this host are kept track of, for deltavee status and recover " +
  "(default: /run/deltavee as root, else deltavee in $XDG_RUNTIME_DIR, or deltavee-UID in the temporary folder)";

export type KeptJournal = Pick<Journal, "listener" | "end" | "remove">;

/**
 * Undefined, with a notice, when there is no folder to be had where nobody asked for one.
 * @throws UsageError when the one that was asked for cannot be used
 */
export function openStateFolder(
  asked: string | undefined,
  notice: (message: string) => void,
  unasked = defaultStateFolder(),
): StateFolder | undefined {
  if (asked !== undefined) return StateFolder.create(asked);
  try {
    return StateFolder.create(unasked);
  } catch (thrown) {
    notice(`deltavee status does not know of this migration: ${toError(thrown).message} (see --state-dir)`);
    return undefined;
  }
}

/** One spelling for each monitor, wherever the command was started. */
export function monitorName(qmp: QmpAddress): string {
  return formatAddress(qmp.kind === "unix" ? { ...qmp, path: resolve(qmp.path) } : qmp);
}

export function keepJournal(
  folder: StateFolder | undefined,
  options: {
    subject: Omit<JournalSubject, "qmp" | "settings"> & { settings?: MigrationSettings };
    qmp: QmpAddress;
    notice: (message: string) => void;
    guestRuns?: () => boolean;
  },
): KeptJournal | undefined {
  if (folder === undefined) return undefined;
  const { subject, qmp, notice, guestRuns } = options;
  const { settings, ...rest } = subject;
  const parameters = Object.entries(settings?.parameters ?? {}).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number",
  );
  const kept =
    settings === undefined
      ? {}
      : { settings: { capabilities: settings.capabilities, parameters: Object.fromEntries(parameters) } };
  return Journal.open(folder, { ...rest, ...kept, qmp: monitorName(qmp) }, notice, guestRuns);
}

/** What QEMU is to get back. The file is our own: a name that QEMU does not know it refuses. */
export function settingsOf(entry: JournalEntry): MigrationSettings | undefined {
  return entry.settings as
    | (JournalEntry["settings"] & { capabilities: { capability: MigrationCapability; state: boolean }[] })
    | undefined;
}

/**
 * Migrations of this VM whose processes died. What they had to put back is for the next one to put back; once that
 * keeps a journal of its own, `forget` them.
 */
export function leftByTheDead(
  folder: StateFolder | undefined,
  qmp: QmpAddress,
): { settings: MigrationSettings | undefined; forget: () => void } {
  const name = monitorName(qmp);
  const dead = knownMigrations(folder).entries.filter(
    (entry) => entry.side === "source" && entry.qmp === name && !isUnderWay(entry),
  );
  return {
    settings: dead.map(settingsOf).find((settings) => settings !== undefined),
    forget: () => {
      for (const entry of dead) folder?.remove(entryName(entry));
    },
  };
}
