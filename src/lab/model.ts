// What the lab is made of, for all of its parts: a link, a guest, a scenario (what the guest does, and what its clients
// see of it), a method (how it is moved), and the setting that names one run. Types and names, nothing else: who builds hosts,
// images and QEMUs is behind them.

/** Between source and destination host, each way; apart from the network over which clients reach the guest. */
export interface LabLink {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** Of the packets, each way: 0.001 is one in a thousand. */
  readonly lossShare: number;
  /** TCP's, at both ends: Linux's default (CUBIC) where nothing is said. */
  readonly congestion?: Congestion | undefined;
}

/** By the names of Linux. */
export const CONGESTIONS = ["cubic", "bbr"] as const;
export type Congestion = (typeof CONGESTIONS)[number];

/** What can be varied of a scenario, by name: numbers, or words where a number would be a riddle ("wr"). */
export type ScenarioParameters = Readonly<Record<string, number | string>>;

export interface GuestShape {
  readonly memoryMiB: number;
  readonly vcpus: number;
}

/** Names one run. Two runs with equal settings but for `run` are repetitions of each other. */
export interface Setting {
  readonly scenario: string;
  /** The scenario's parameters, all of them, as used (`Scenario.parameters` gives names and defaults). */
  readonly parameters: ScenarioParameters;
  readonly guest: GuestShape;
  readonly method: string;
  readonly link: LabLink;
  /** On both sides: "7.2", "10.0". */
  readonly qemu: string;
  /** From 1. */
  readonly run: number;
}

/** A root shell in the guest, over the client network. */
export interface GuestShell {
  /** Resolves to what the command has printed. @throws Error when it ends with another exit code than 0 */
  run(command: string, timeoutMs?: number): Promise<string>;
  /** Starts a command that goes on by itself, whatever becomes of the connection; its output goes to `logFile` there. */
  start(command: string, logFile?: string): Promise<void>;
}

/** Of `Stage.startClient`: a program of `src/lab/client` on the client host. Ended with the stage at the latest. */
export interface Client {
  /** Resolves when it has said that what it does is steady. @throws Error when it ends before */
  ready(timeoutMs: number): Promise<void>;
  /** Tells it what happens to the guest, so that it can tell before, during and after apart. */
  tell(word: "migration-begins" | "migration-ended"): void;
  /** Tells it to end and resolves to what it has seen. */
  finish(): Promise<ClientView>;
}

/** What clients saw. Clients may be several to a scenario, which puts their views together. */
export interface ClientView {
  /** By the names of `Scenario.metrics`. What could not be measured is left out, never 0. */
  readonly metrics: Readonly<Record<string, number>>;
  /** What went wrong for them, in words that can stand in a table ("3 sessions lost"). Empty: nothing. */
  readonly failures: readonly string[];
  /** Over time, thinned out to some hundred points at most; time is that of `performance.timeOrigin` plus now, in ms. */
  readonly series: readonly ClientSeries[];
}

export interface ClientSeries {
  /** "transactions per second", "delay of the picture". */
  readonly name: string;
  readonly unit: string;
  readonly points: readonly { readonly epochMs: number; readonly value: number }[];
}

/** A running guest and the hosts around it, as a scenario sees them: the guest keeps its address when it is moved. */
export interface Stage {
  readonly guest: GuestShell;
  readonly guestAddress: string;
  readonly shape: GuestShape;
  /** Where a scenario may keep what its clients need (a clip), from run to run. */
  readonly cacheFolder: string;
  /** `program`: name of a module of `src/lab/client`, e.g. "video"; `options` go to it as one JSON argument. */
  startClient(program: string, options: Readonly<Record<string, unknown>>): Promise<Client>;
}

export interface Metric {
  readonly name: string;
  /** Heading in a table: "frozen picture". */
  readonly title: string;
  /** "ms", "1/s", "bytes", "". */
  readonly unit: string;
  readonly isLowerBetter: boolean;
  /** False: says how long a run took or how much was looked at, not how good a method is. */
  readonly isJudged?: false;
}

/** What a guest does, who uses it, and when its users call a migration failed. */
export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** One sentence: what it stands for, and whom it flatters. */
  readonly description: string;
  readonly guest: GuestShape;
  /** The smallest that still shows something: for the smoke run. */
  readonly smoke: { readonly guest: GuestShape; readonly parameters: ScenarioParameters };
  /** Names and defaults of what can be varied (`--set bytesPerPage=64`). */
  readonly parameters: ScenarioParameters;
  /** Those of them on which the warm state depends (the size of a database). */
  readonly warmParameters: readonly string[];
  readonly metrics: readonly Metric[];
  /** Brings a guest that has just booted to where every run starts. Once: its RAM and disk are kept and loaded again. */
  warmUp(stage: Stage, parameters: ScenarioParameters): Promise<void>;
  /** Starts load and clients; resolves when all is steady and the guest may be moved. */
  begin(stage: Stage, parameters: ScenarioParameters): Promise<Activity>;
}

/** What a scenario has going on while the guest is moved. */
export interface Activity {
  migrationBegins(): void;
  migrationEnded(): void;
  /** For so long it goes on when the guest was moved, before it is ended: its clients need that for their view. */
  readonly afterMs: number;
  /** Ends it, and tells what was seen. */
  finish(): Promise<ClientView>;
}
