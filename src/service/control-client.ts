// The other end of the control socket: what `deltavee evacuate` and `deltavee service` ask of a running service.

import { request } from "node:http";
import { DeltaveeError, LinkError } from "../base/errors.ts";
import {
  type ErrorAnswer,
  errorOf,
  type MigrationRequest,
  type MigrationsAnswer,
  type ServiceAnswer,
  type VmAnswer,
  type VmRequest,
  type VmsAnswer,
} from "./control-api.ts";
import type { MoveView } from "./move.ts";

const TIMEOUT_MS = 15_000;
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

export class ControlClient {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  service(): Promise<ServiceAnswer> {
    return this.#ask("GET", "/v1/service");
  }

  async migrations(): Promise<readonly MoveView[]> {
    return (await this.#ask<MigrationsAnswer>("GET", "/v1/migrations")).migrations;
  }

  migrate(wish: MigrationRequest): Promise<MoveView> {
    return this.#ask("POST", "/v1/migrations", wish);
  }

  cancel(id: string): Promise<MoveView> {
    return this.#ask("DELETE", `/v1/migrations/${encodeURIComponent(id)}`);
  }

  async vms(): Promise<readonly VmAnswer[]> {
    return (await this.#ask<VmsAnswer>("GET", "/v1/vms")).vms;
  }

  prepare(vm: VmRequest): Promise<VmAnswer> {
    return this.#ask("POST", "/v1/vms", vm);
  }

  forget(qmp: string): Promise<VmAnswer> {
    return this.#ask("DELETE", `/v1/vms/${encodeURIComponent(qmp)}`);
  }

  /** @throws DeltaveeError SERVICE_UNREACHABLE, or what the service says */
  async #ask<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    const { status, text } = await this.#exchange(
      method,
      path,
      body === undefined ? "" : JSON.stringify(body),
    );
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch (cause) {
      throw new DeltaveeError("SERVICE_UNREACHABLE", `What listens on ${this.#path} is no Deltavee service`, {
        cause,
      });
    }
    if (status >= 300) throw errorOf(answer as ErrorAnswer);
    return answer as Result;
  }

  #exchange(method: string, path: string, body: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const fail = (cause: Error) =>
        reject(new DeltaveeError("SERVICE_UNREACHABLE", `No service answers on ${this.#path}`, { cause }));
      const asked = request(
        {
          socketPath: this.#path,
          method,
          path,
          agent: false,
          timeout: TIMEOUT_MS,
          headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) },
        },
        (response) => {
          const pieces: Buffer[] = [];
          let bytes = 0;
          response.on("data", (piece: Buffer) => {
            bytes += piece.length;
            if (bytes > ANSWER_BYTES_MAX) asked.destroy(new Error("its answer has no end"));
            else pieces.push(piece);
          });
          response.on("end", () =>
            resolve({ status: response.statusCode ?? 500, text: Buffer.concat(pieces).toString("utf8") }),
          );
          response.on("error", fail);
        },
      );
      asked.on("timeout", () =>
        asked.destroy(new LinkError("LINK_TIMEOUT", `no answer within ${TIMEOUT_MS / 1000} s`)),
      );
      asked.on("error", fail);
      asked.end(body);
    });
  }
}
