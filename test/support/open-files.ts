import { readdirSync, readlinkSync } from "node:fs";

const DESCRIPTORS = "/proc/self/fd";

/** Files in this folder that this process holds open, its threads included (Linux). */
export function openFilesOf(folder: string): string[] {
  return readdirSync(DESCRIPTORS)
    .map((descriptor) => targetOf(descriptor))
    .filter((path) => path.startsWith(`${folder}/`));
}

/** Empty for one that has been closed meanwhile, as that of the listing itself. */
function targetOf(descriptor: string): string {
  try {
    return readlinkSync(`${DESCRIPTORS}/${descriptor}`);
  } catch {
    return "";
  }
}
