// What an application tier asks of its database: sessions and locks that live as long as their lease, and groups of
// documents that are read and changed as one. Here by Redis, with optimistic locking (WATCH) so that nobody commits
// under a lock that it no longer has. Knows no time but that of the server.

import { assert } from "../../base/assert.ts";
import type { RedisCommand } from "./redis.ts";
import { RespErrorReply, type RespReply } from "./resp.ts";

export interface OrderDatabase {
  /** Begins a session that lives for `leaseMs`, and again with each renewal. */
  logIn(session: number, leaseMs: number): Promise<void>;
  /** Renews the session's lease and asks for the lock of a group of documents, which lives as long. */
  renewAndLock(session: number, group: number, leaseMs: number): Promise<Renewal>;
  /** The versions of the group's documents, and whether the lock is the session's still. Begins a transaction. */
  read(
    session: number,
    group: number,
  ): Promise<{ readonly hasLock: boolean; readonly versions: readonly number[] }>;
  /** Changes every document of the group and gives the lock back. False: the lock had gone, and nothing has changed. */
  commit(session: number, group: number, version: number): Promise<boolean>;
  /** Without a transaction: for those who check. */
  versions(groups: readonly number[]): Promise<readonly (readonly number[])[]>;
  close(): void;
}

export interface Renewal {
  readonly isSessionAlive: boolean;
  readonly isLocked: boolean;
}

export interface OrderShape {
  readonly documentsPerGroup: number;
  readonly documentBytes: number;
  /** Of each document, beside its version. */
  readonly changedBytes: number;
}

/** Digits at the begin of a document; lab/guest/documents.c writes zeros there. */
const VERSION_DIGITS = 12;

const JOURNAL_ENTRIES_MAX = 10_000;

export interface Pipeline {
  pipeline(commands: readonly RedisCommand[]): Promise<readonly RespReply[]>;
  close(): void;
}

export class RedisOrders implements OrderDatabase {
  readonly #redis: Pipeline;
  readonly #shape: OrderShape;
  readonly #random: () => number;

  /** `random`: 0 to 1, as Math.random. */
  constructor(redis: Pipeline, shape: OrderShape, random: () => number) {
    assert(
      shape.documentBytes >= VERSION_DIGITS + shape.changedBytes,
      "a document holds what is changed in it",
    );
    this.#redis = redis;
    this.#shape = shape;
    this.#random = random;
  }

  async logIn(session: number, leaseMs: number): Promise<void> {
    await this.#run([["SET", sessionKey(session), `user-${session}`, "PX", leaseMs]]);
  }

  async renewAndLock(session: number, group: number, leaseMs: number): Promise<Renewal> {
    const [renewed, locked] = await this.#run([
      ["PEXPIRE", sessionKey(session), leaseMs],
      ["SET", lockKey(group), session, "NX", "PX", leaseMs],
    ]);
    return { isSessionAlive: renewed === 1, isLocked: locked === "OK" };
  }

  async read(session: number, group: number): Promise<{ hasLock: boolean; versions: number[] }> {
    const [, owner, ...documents] = await this.#run([
      ["WATCH", lockKey(group)],
      ["GET", lockKey(group)],
      ...this.#documents(group).map((key) => ["GET", key]),
    ]);
    return { hasLock: owner === String(session), versions: documents.map(versionOf) };
  }

  async commit(session: number, group: number, version: number): Promise<boolean> {
    const changes = this.#documents(group).flatMap((key) => [
      ["SETRANGE", key, 0, String(version).padStart(VERSION_DIGITS, "0")],
      ["SETRANGE", key, this.#fieldAt(), this.#field()],
    ]);
    const replies = await this.#run([
      ["MULTI"],
      ...changes,
      [
        "XADD",
        "journal",
        "MAXLEN",
        "~",
        JOURNAL_ENTRIES_MAX,
        "*",
        "session",
        session,
        "group",
        group,
        "version",
        version,
      ],
      ["DEL", lockKey(group)],
      ["EXEC"],
    ]);
    return replies.at(-1) !== null;
  }

  async versions(groups: readonly number[]): Promise<number[][]> {
    const { documentsPerGroup } = this.#shape;
    const keys = groups.flatMap((group) => this.#documents(group));
    const found = await this.#run(keys.map((key) => ["GETRANGE", key, 0, VERSION_DIGITS - 1]));
    const versions = found.map(versionOf);
    return groups.map((_, index) =>
      versions.slice(index * documentsPerGroup, (index + 1) * documentsPerGroup),
    );
  }

  close(): void {
    this.#redis.close();
  }

  /** @throws Error for the first of the replies that is one */
  async #run(commands: readonly RedisCommand[]): Promise<readonly RespReply[]> {
    const replies = await this.#redis.pipeline(commands);
    for (const [index, reply] of replies.entries()) {
      if (reply instanceof RespErrorReply) throw new Error(`${commands[index]?.[0]}: ${reply.message}`);
    }
    return replies;
  }

  #documents(group: number): string[] {
    const first = group * this.#shape.documentsPerGroup;
    return Array.from({ length: this.#shape.documentsPerGroup }, (_, index) => `document:${first + index}`);
  }

  #fieldAt(): number {
    const { documentBytes, changedBytes } = this.#shape;
    return VERSION_DIGITS + Math.floor(this.#random() * (documentBytes - VERSION_DIGITS - changedBytes + 1));
  }

  /** Digits and letters, as an order's numbers and keys are: another each time. */
  #field(): string {
    let text = "";
    while (text.length < this.#shape.changedBytes) text += this.#random().toString(36).slice(2);
    return text.slice(0, this.#shape.changedBytes);
  }
}

function sessionKey(session: number): string {
  return `session:${session}`;
}

function lockKey(group: number): string {
  return `lock:${group}`;
}

/** NaN for what is no document: equal to no version. */
function versionOf(document: RespReply | undefined): number {
  return typeof document === "string" ? Number.parseInt(document.slice(0, VERSION_DIGITS), 10) : Number.NaN;
}
