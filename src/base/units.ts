// Sizes, rates and durations as people write them ("64MiB", "100mbit", "20ms"), and back.
// Inside the program they are plain numbers whose names end in the unit: Bytes, BytesPerSecond, Ms.

import { UsageError } from "./errors.ts";

const SIZE_FACTORS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1024,
  kb: 1000,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1000 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1000 ** 3,
  gib: 1024 ** 3,
  t: 1024 ** 4,
  tb: 1000 ** 4,
  tib: 1024 ** 4,
};

/** Bytes per second; bits as in tc(8) ("mbit"), bytes as "MB/s" or "MiB/s". */
const RATE_FACTORS: Readonly<Record<string, number>> = {
  bit: 1 / 8,
  "bit/s": 1 / 8,
  kbit: 1000 / 8,
  "kbit/s": 1000 / 8,
  mbit: 1000 ** 2 / 8,
  "mbit/s": 1000 ** 2 / 8,
  gbit: 1000 ** 3 / 8,
  "gbit/s": 1000 ** 3 / 8,
  "b/s": 1,
  "kb/s": 1000,
  "kib/s": 1024,
  "mb/s": 1000 ** 2,
  "mib/s": 1024 ** 2,
  "gb/s": 1000 ** 3,
  "gib/s": 1024 ** 3,
};

const DURATION_FACTORS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
};

function parse(
  text: string,
  factors: Readonly<Record<string, number>>,
  what: string,
  example: string,
): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z/]*)$/i.exec(text.trim());
  const factor = match?.[2] === undefined ? undefined : factors[match[2].toLowerCase()];
  if (match?.[1] === undefined || factor === undefined) {
    throw new UsageError(`Not a ${what}: "${text}" (expected e.g. ${example})`);
  }
  return Number(match[1]) * factor;
}

/** "64MiB", "2G" (binary, as QEMU has it), "5GB" (decimal), "4096". @throws UsageError */
export function parseBytes(text: string): number {
  return Math.round(parse(text, SIZE_FACTORS, "size", "64MiB, 2G"));
}

/** "100mbit", "12.5MB/s". A bare number is refused: nobody agrees on its unit. @throws UsageError */
export function parseBytesPerSecond(text: string): number {
  const rate = parse(text, RATE_FACTORS, "rate", "100mbit, 12.5MB/s");
  if (rate <= 0) throw new UsageError(`A rate must be above zero: "${text}"`);
  return rate;
}

/** "100ms", "10m", "1.5s". @throws UsageError */
export function parseMs(text: string): number {
  return parse(text, DURATION_FACTORS, "duration", "100ms, 10m");
}

/** "167.5 MB" (decimal, as networks are counted). */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toFixed(value < 100 ? 1 : 0)} ${units[unit]}`;
}

/** "100.0 Mbit/s". */
export function formatBytesPerSecond(bytesPerSecond: number): string {
  const bits = bytesPerSecond * 8;
  if (bits < 1e6) return `${(bits / 1e3).toFixed(1)} kbit/s`;
  if (bits < 1e9) return `${(bits / 1e6).toFixed(1)} Mbit/s`;
  return `${(bits / 1e9).toFixed(2)} Gbit/s`;
}

/** "84 ms", "14.2 s", "3 min 20 s". */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
