// The folder in which the migrations of a host are known by (journal.ts): where it is, and files in it that are
// replaced whole. It belongs to one user, and nobody else can write to it or read it; what does not look like that
// is not touched.

import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { UsageError } from "../base/errors.ts";

/** Far more than a file here has to say. */
const FILE_BYTES_MAX = 64 * 1024;
const OTHERS_BITS = 0o077;
const FILE_ENDING = ".json";
const { O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW, O_NONBLOCK } = constants;

/** Of the operating system; a root login's XDG_RUNTIME_DIR would be gone with the login. */
export function defaultStateFolder(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.()): string {
  if (uid === 0) return "/run/deltavee";
  const runtimeFolder = env.XDG_RUNTIME_DIR;
  if (runtimeFolder?.startsWith("/")) return join(runtimeFolder, "deltavee");
  return join(tmpdir(), `deltavee-${uid ?? "state"}`);
}

export class StateFolder {
  readonly path: string;

  /** Creates it where it is not there. @throws UsageError when it cannot be used */
  static create(path: string): StateFolder {
    const folder = new StateFolder(path);
    try {
      mkdirSync(folder.path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new UsageError(`Cannot create the folder ${folder.path}`, { cause });
    }
    folder.#check();
    return folder;
  }

  /** Undefined: it is not there, so nothing is in it. @throws UsageError when it cannot be used */
  static find(path: string): StateFolder | undefined {
    const folder = new StateFolder(path);
    if (lstatSync(folder.path, { throwIfNoEntry: false }) === undefined) return undefined;
    folder.#check();
    return folder;
  }

  private constructor(path: string) {
    this.path = resolve(path);
  }

  /** Names of the files in it, without their ending; half-written ones are none. */
  names(): string[] {
    return readdirSync(this.path)
      .filter((name) => name.endsWith(FILE_ENDING))
      .map((name) => name.slice(0, -FILE_ENDING.length))
      .sort();
  }

  /** @throws Error with the reason, also for a file that is not ours or no file at all */
  read(name: string): string {
    // A pipe of that name would make us wait for a writer.
    const fd = openSync(this.#pathOf(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new Error("it is no file");
      if (stat.uid !== process.geteuid?.()) throw new Error("it belongs to another user");
      if (stat.size > FILE_BYTES_MAX) throw new Error(`it is longer than ${FILE_BYTES_MAX} bytes`);
      const bytes = Buffer.alloc(FILE_BYTES_MAX);
      return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, 0));
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Whoever reads the file, at any moment and after any crash of this process, sees its old or its new content.
   * `durable`: after a crash of the machine, too. @throws Error with the reason
   */
  write(name: string, text: string, { durable = false } = {}): void {
    const temporary = this.#temporaryOf(name);
    const fd = openSync(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
    try {
      const bytes = Buffer.from(text);
      // What is there of a full disk is written, and the rest is not an error.
      if (writeSync(fd, bytes) < bytes.length) throw new Error("no space is left on the device");
      if (durable) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, this.#pathOf(name));
    if (durable) syncFolder(this.path);
  }

  /** Harmless when it is not there. */
  remove(name: string): void {
    rmSync(this.#temporaryOf(name), { force: true });
    rmSync(this.#pathOf(name), { force: true });
  }

  #pathOf(name: string): string {
    return join(this.path, `${name}${FILE_ENDING}`);
  }

  #temporaryOf(name: string): string {
    return join(this.path, `.${name}${FILE_ENDING}.tmp`);
  }

  #check(): void {
    const stat = lstatSync(this.path);
    const refuse = (why: string) => new UsageError(`Will not keep state in ${this.path}: ${why}`);
    if (!stat.isDirectory()) throw refuse("it is no folder");
    if (stat.uid !== process.geteuid?.()) throw refuse("it belongs to another user");
    if ((stat.mode & OTHERS_BITS) !== 0) throw refuse("others have access to it (chmod 700)");
  }
}

function syncFolder(path: string): void {
  const fd = openSync(path, O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
