// A guest's RAM as it can be looked at from outside while the guest runs. Hypervisors have it, the planner reads it.

export interface GuestMemory {
  readonly pageBytes: number;
  readonly pageCount: number;
  /** False where the host holds nothing for this page: all zero, and better not read, since that may allocate it. */
  isPresent(page: number): boolean;
  /** Copies the page to `target` (`pageBytes` long). The guest may write to it meanwhile. */
  read(page: number, target: Uint8Array): void;
}
