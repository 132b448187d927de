// What code needs of the run record that checks nothing: schema.ts, with the library that it takes, stays out of pages.

import type { PageClasses } from "./schema.ts";

export const RECORD_VERSION = 1;

export const NO_PAGES: Readonly<PageClasses> = {
  zeroPages: 0,
  unchangedPages: 0,
  deltaPages: 0,
  overflowPages: 0,
  rawPages: 0,
  duplicatePages: 0,
  deltaBytes: 0,
};
