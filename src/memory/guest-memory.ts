// A guest's RAM as it can be looked at from outside while the guest runs. Hypervisors have it, the planner reads it.

export interface GuestMemory {
  readonly pageBytes: number;
  readonly pageCount: number;
  /**
   * Those of these pages, ascending, for which the host holds anything. Others are all zero, and better not read, since
   * that may allocate them.
   */
  present(pages: readonly number[]): readonly number[];
  /** Where reading has to wait: gets these pages, which `read` then gives as they are now. The others it forgets. */
  load?(pages: readonly number[]): Promise<void>;
  /** Copies the page to `target` (`pageBytes` long). The guest may write to it meanwhile. */
  read(page: number, target: Uint8Array): void;
}
