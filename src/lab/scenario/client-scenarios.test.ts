import { describe, expect, it } from "vitest";
import { UsageError } from "../../base/errors.ts";
import type { Client, Scenario, ScenarioParameters, Stage } from "../model.ts";
import { enterprise } from "./enterprise.ts";
import { postgres } from "./postgres.ts";
import { video } from "./video.ts";

const EMPTY = { metrics: {}, failures: [], series: [] };

/** A guest that answers what `answer` says, and clients that are steady at once. */
function fakeStage(answer: (command: string) => string = () => "") {
  const ran: string[] = [];
  const clients: { program: string; options: Readonly<Record<string, unknown>> }[] = [];
  const told: string[] = [];
  const client: Client = {
    ready: async () => {},
    tell: (word) => void told.push(word),
    finish: async () => EMPTY,
  };
  const stage: Stage = {
    guest: {
      run: async (command) => {
        ran.push(command);
        return answer(command);
      },
      start: async (command) => void ran.push(command),
    },
    guestAddress: "10.9.0.2",
    shape: { memoryMiB: 512, vcpus: 1 },
    cacheFolder: "/nowhere",
    startClient: async (program, options) => {
      clients.push({ program, options });
      return client;
    },
  };
  return { stage, ran, clients, told };
}

function parametersOf(scenario: Scenario, changed: ScenarioParameters = {}): ScenarioParameters {
  return { ...scenario.parameters, ...changed };
}

describe.each([video, enterprise, postgres])("scenario $name", (scenario) => {
  it("can be begun with its defaults and as the smoke run has it, and tells its client what happens", async () => {
    for (const changed of [{}, scenario.smoke.parameters]) {
      const { stage, clients, told } = fakeStage();
      const activity = await scenario.begin(stage, parametersOf(scenario, changed));
      activity.migrationBegins();
      activity.migrationEnded();
      expect(told).toEqual(["migration-begins", "migration-ended"]);
      expect(clients).toHaveLength(1);
      expect(clients[0]!.options).toMatchObject({ host: "10.9.0.2" });
    }
  });

  it("varies only what it has, and has a name of its own for each metric", () => {
    const known = Object.keys(scenario.parameters);
    expect(known).toEqual(
      expect.arrayContaining([...Object.keys(scenario.smoke.parameters), ...scenario.warmParameters]),
    );
    const names = scenario.metrics.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe("scenario video", () => {
  it.each([
    ["none", undefined],
    ["lmbench", /bw_mem -W 0 -N 100000 64M wr$/],
    ["writer", /^\/lab\/bin\/writer 9101 64 8000 64 random scattered$/],
  ])("with %s as its dirtier starts that beside the server", async (dirtier, command) => {
    const { stage, ran } = fakeStage();
    await video.begin(stage, parametersOf(video, { dirtier }));
    expect(ran.length).toBe(command === undefined ? 1 : 2);
    if (command !== undefined) expect(ran[0]).toMatch(command);
    expect(ran.at(-1)).toContain("-c copy");
  });

  it("encodes while it sends where it is told to", async () => {
    const { stage, ran } = fakeStage();
    await video.begin(stage, parametersOf(video, { server: "encode", dirtier: "none" }));
    expect(ran.at(-1)).toMatch(/-re -f lavfi .*libx264/);
  });

  it.each([{ dirtier: "vlc" }, { server: "rtp" }, { bytesPerPage: 5000 }])("refuses %j", async (changed) => {
    const begun = video.begin(fakeStage().stage, parametersOf(video, changed));
    await expect(begun).rejects.toThrow(UsageError);
  });
});

describe("scenario enterprise", () => {
  it("has sessions work on as many documents as the working set holds, and no more than there are", async () => {
    const { stage, clients } = fakeStage();
    const changed = { databaseMiB: 100, workingSetMiB: 100, documentBytes: 904, documentsPerTransaction: 8 };
    await enterprise.begin(stage, parametersOf(enterprise, changed));
    expect(clients[0]!.options).toMatchObject({ groups: 12_800, documentsPerGroup: 8 });
  });

  it("is not warm before every document is there", async () => {
    const changed = { databaseMiB: 1, documentBytes: 904 };
    const holds = (count: number) =>
      fakeStage((command) => (command.includes("dbsize") ? `${count}\n` : "")).stage;
    await enterprise.warmUp(holds(1024), parametersOf(enterprise, changed));
    for (const count of [1023, 11_024]) {
      await expect(enterprise.warmUp(holds(count), parametersOf(enterprise, changed))).rejects.toThrow(
        "of 1024",
      );
    }
  });

  it.each([{ thinkMs: 4000 }, { workingSetMiB: 6000 }, { changedBytes: 990 }, { sessions: 0 }])(
    "refuses %j",
    async (changed) => {
      const begun = enterprise.begin(fakeStage().stage, parametersOf(enterprise, changed));
      await expect(begun).rejects.toThrow(UsageError);
    },
  );
});

it("scenario postgres has the server acknowledge before or after the disk has it", async () => {
  for (const synchronousCommit of ["on", "off"]) {
    const { stage, clients } = fakeStage();
    await postgres.begin(stage, parametersOf(postgres, { synchronousCommit }));
    expect(clients[0]!.options).toMatchObject({ isSynchronous: synchronousCommit === "on" });
  }
  const begun = postgres.begin(fakeStage().stage, parametersOf(postgres, { synchronousCommit: "local" }));
  await expect(begun).rejects.toThrow(UsageError);
});
