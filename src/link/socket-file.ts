// Watches the file of a unix socket that we listen on: whoever binds another socket there, or removes it, takes all
// connections away from us, and nobody would notice, since they are made as before.

import { lstatSync } from "node:fs";

const LOOK_EVERY_MS = 500;

/** `gone` is called once, with what has become of it. The returned function ends the watch. */
export function watchSocketFile(path: string, gone: (how: "removed" | "replaced") => void): () => void {
  const ours = identify(path);
  const timer = setInterval(() => {
    const now = identify(path);
    if (now === ours) return;
    clearInterval(timer);
    gone(now === undefined ? "removed" : "replaced");
  }, LOOK_EVERY_MS);
  timer.unref();
  return () => clearInterval(timer);
}

function identify(path: string): string | undefined {
  // An inode is not given to another file as long as our socket is bound to it.
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found === undefined ? undefined : `${found.dev}:${found.ino}`;
}
