// One embedded guest at work, moved from one VM to the next in this process, again and again. It must count on without a
// gap and find its memory whole after each move.

import { V86Migration } from "../support/v86-migration.ts";
import { OneGuest, V86Vm } from "../support/v86-vm.ts";
import { type Measure, measureSelf } from "./measure.ts";

const MEMORY_MIB = 8;
const LOAD = "ws=2048 rate=1000 pattern=sparse fill=random";
const HEARTBEATS = 5;

/** `stillTime`: whether there is time for another move. @throws Error for a guest that is not whole */
export async function moveV86(
  moves: number,
  folder: string,
  moved: (moves: number) => void,
  stillTime: () => boolean = () => true,
): Promise<Measure[]> {
  const measures: Measure[] = [];
  const guest = new OneGuest();
  let source = await V86Vm.open(guest, { memoryMiB: MEMORY_MIB, commandLine: LOAD });
  try {
    await source.start();
    for (let move = 1; move <= moves && stillTime(); move++) {
      const destination = await V86Vm.open(guest, { memoryMiB: MEMORY_MIB });
      const method = move % 2 === 0 ? "standard" : "delta";
      const migration = await V86Migration.start({
        source,
        destination,
        method,
        rate: "100mbit",
        reconnectMs: 60_000,
      });
      const result = await migration.result();
      const left = source;
      source = destination;
      await left.die();
      if (result.source.outcome !== "completed") throw result.source.error;
      if (result.differing?.length !== 0) throw new Error(`Move ${move}: pages ${result.differing} differ`);
      await source.waitForHeartbeats(HEARTBEATS);
      const { ok } = await source.verify();
      if (!ok) throw new Error(`Move ${move}: the guest finds its memory damaged`);
      expectNoGap(left, source, move);
      // What the tests remember of VMs that are gone would be a leak of their own.
      guest.vms.splice(0, guest.vms.length, source);
      if (guest.violations.length > 0) throw new Error(guest.violations.join("; "));
      measures.push(await measureSelf(folder, measures[0]));
      moved(move);
    }
  } finally {
    await source.die();
  }
  return measures;
}

function expectNoGap(left: V86Vm, arrived: V86Vm, move: number): void {
  const [last, first] = [left.heartbeats.at(-1)!.counter, arrived.heartbeats[0]!.counter];
  if (first !== last + 1) throw new Error(`Move ${move}: heartbeat ${last} was followed by ${first}`);
}
