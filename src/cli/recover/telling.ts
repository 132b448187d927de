// How `deltavee recover` tells what it has done and where the guest is: line by line for people, or as one object.

import type { JournalEntry } from "../../state/journal.ts";
import type { Finding } from "../../state/whereabouts.ts";
import { describeMigration } from "../status.ts";

export type Found = Pick<Finding, "vm" | "explanation">;

/** How it is told what was done, and where the guest is. */
export interface Telling {
  did(what: string): void;
  found(finding: Found): void;
  end(): void;
}

export class TextTelling implements Telling {
  constructor(entry: JournalEntry | undefined) {
    if (entry !== undefined) this.did(describeMigration(entry));
  }

  did(what: string): void {
    process.stdout.write(`${what}\n`);
  }

  found({ vm, explanation }: Found): void {
    this.did(`the VM is: ${vm}`);
    this.did(`  ${explanation}.`);
  }

  end(): void {}
}

export class JsonTelling implements Telling {
  readonly #session: string | undefined;
  readonly #actions: string[] = [];
  #finding: Found | undefined;

  constructor(entry: JournalEntry | undefined) {
    this.#session = entry?.session;
  }

  did(what: string): void {
    this.#actions.push(what);
  }

  found(finding: Found): void {
    this.#finding = finding;
  }

  end(): void {
    const { vm, explanation } = this.#finding ?? {};
    const result = { session: this.#session, actions: this.#actions, vm, explanation };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
}
