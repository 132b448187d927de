// A connection to a Redis: commands go out at once, as many under way as the caller likes; replies come in order.
// One that breaks stays broken: whoever wants to go on opens another.

import type { Socket } from "node:net";
import { toError } from "../../base/errors.ts";
import { type Address, connectOnce } from "./connect.ts";
import { encodeCommand, RespErrorReply, RespParser, type RespReply } from "./resp.ts";

export type RedisCommand = readonly (string | number)[];

interface Waiting {
  resolve(replies: readonly RespReply[]): void;
  reject(error: Error): void;
  readonly replies: RespReply[];
  readonly count: number;
}

export class RedisConnection {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #broken: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const parser = new RespParser((reply) => this.#reply(reply));
    socket.on("data", (chunk) => {
      try {
        parser.push(chunk);
      } catch (thrown) {
        this.#break(toError(thrown));
      }
    });
    socket.on("error", (error) => this.#break(error));
    socket.on("close", () => this.#break(new Error("The connection to Redis has ended")));
  }

  static async open(address: Address, timeoutMs: number): Promise<RedisConnection> {
    return new RedisConnection(await connectOnce(address, timeoutMs));
  }

  /** @throws Error when Redis answers with one */
  async command(...words: RedisCommand): Promise<RespReply> {
    const [reply] = await this.pipeline([words]);
    if (reply instanceof RespErrorReply) throw new Error(`${words[0]}: ${reply.message}`);
    return reply ?? null;
  }

  /** Sends all of them in one go and resolves to their replies, errors of Redis among them. */
  pipeline(commands: readonly RedisCommand[]): Promise<readonly RespReply[]> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject, replies: [], count: commands.length });
      this.#socket.write(Buffer.concat(commands.map(encodeCommand)));
    });
  }

  /** What is under way is rejected. Idempotent. */
  close(): void {
    this.#break(new Error("The connection to Redis was closed"));
  }

  #reply(reply: RespReply): void {
    const waiting = this.#waiting[0];
    if (waiting === undefined) {
      this.#break(new Error("Redis said something that nobody had asked for"));
      return;
    }
    waiting.replies.push(reply);
    if (waiting.replies.length < waiting.count) return;
    this.#waiting.shift();
    waiting.resolve(waiting.replies);
  }

  #break(error: Error): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    this.#socket.destroy();
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}
