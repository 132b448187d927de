// Who has opened the other end of a TCP connection from this very host: the kernel's own table of connections says it
// (Linux, /proc/net/tcp and tcp6). It is the user that made the socket: one that was handed on to another process, as
// libvirt hands it to its QEMU, keeps it.

import { readFile } from "node:fs/promises";
import { isIPv6, type Socket } from "node:net";
import { endianness } from "node:os";

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** The only state in which the user is told for sure: of what has ended the kernel says root, whoever it was. */
const ESTABLISHED = "01";
const WORD_BYTES = 4;
const IPV6_GROUPS = 8;

/** Its user's id; undefined where that cannot be told, also because it has ended meanwhile. Never rejects. */
export async function peerUid(socket: Socket): Promise<number | undefined> {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  if (localAddress === undefined || localPort === undefined) return undefined;
  // As the other end has it.
  const [own, other] = [
    { address: remoteAddress, port: remotePort },
    { address: localAddress, port: localPort },
  ];
  for (const path of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const table = await readFile(path, "latin1").catch(() => "");
    const uid = uidIn(table, own, other);
    if (uid !== undefined) return uid;
  }
  return undefined;
}

/** Of the connection that has `own` and `other` as its ends, exactly. `table`: as the kernel prints it. */
export function uidIn(table: string, own: Endpoint, other: Endpoint): number | undefined {
  const [mine, theirs] = [namesOf(own), namesOf(other)];
  for (const line of table.split("\n")) {
    const [, local, remote, state, , , , uid] = line.trim().split(/\s+/);
    if (local === undefined || remote === undefined || uid === undefined || state !== ESTABLISHED) continue;
    if (mine.includes(local) && theirs.includes(remote)) return Number(uid);
  }
  return undefined;
}

/** What the kernel calls it; of IPv4 there are two names: a socket for IPv6 may have connected to it as well. */
function namesOf({ address, port }: Endpoint): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const bytes = isIPv6(address) ? ipv6Bytes(address) : [...address.split(".").map(Number)];
  const isMapped = bytes.length > WORD_BYTES && MAPPED.every((byte, index) => bytes[index] === byte);
  const plain = isMapped ? bytes.slice(MAPPED.length) : bytes;
  const all = plain.length === WORD_BYTES ? [plain, [...MAPPED, ...plain]] : [plain];
  return all.map((each) => kernelHex(each) + suffix);
}

/** ::ffff:0:0/96 */
const MAPPED: readonly number[] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** Words of four bytes, each printed as a number of this machine. */
function kernelHex(bytes: readonly number[]): string {
  let text = "";
  for (let start = 0; start < bytes.length; start += WORD_BYTES) {
    const word = bytes.slice(start, start + WORD_BYTES);
    if (endianness() === "LE") word.reverse();
    text += word.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  return text.toUpperCase();
}

function ipv6Bytes(address: string): number[] {
  const plain = address.split("%")[0]!.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_all, ...parts) => {
    const [a, b, c, d] = parts.slice(0, WORD_BYTES).map(Number) as [number, number, number, number];
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [before = "", after] = plain.split("::");
  const groups = (text: string) =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const [head, tail] = [groups(before), groups(after ?? "")];
  const zeros = new Array<number>(IPV6_GROUPS - head.length - tail.length).fill(0);
  return [...head, ...zeros, ...tail].flatMap((group) => [group >> 8, group & 0xff]);
}
