// The metrics of this program: names, units and labels by Prometheus's conventions, and what each of them means.
// docs/operations.md has them as a table, which a test holds to this file. Which events move them: metrics.ts.

import { Counter, Gauge, Histogram, type Registry } from "prom-client";

const SIDE = "side" as const;
/** A guest that stood still for a frame, for a TCP retransmission, for longer than a client waits. */
const STANDSTILL_SECONDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];
const DURATION_SECONDS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400];
/** Of what was forecast, against what came: 0.1 is ten percent off. */
const ERROR_RATIOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const WIRE_RATIOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1];

export type Instruments = ReturnType<typeof makeInstruments>;

/** Registers all of them. */
export function makeInstruments(registry: Registry) {
  const registers = [registry];
  const counter = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Counter<Label>({ name, help, labelNames, registers });
  const gauge = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Gauge<Label>({ name, help, labelNames, registers });
  const histogram = <Label extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: Label[],
  ) => new Histogram<Label>({ name, help, buckets, labelNames, registers });
  return {
    buildInfo: gauge("deltavee_build_info", "What runs here. Always 1.", ["version", "node"]),

    queued: gauge("deltavee_migrations_queued", "Outgoing migrations that wait for their turn."),
    linkLimitBytesPerSecond: gauge(
      "deltavee_link_limit_bytes_per_second",
      "What outgoing migrations may send together. Absent: there is no limit.",
    ),

    started: counter("deltavee_migrations_started_total", "Migrations that have begun.", [SIDE, "mode"]),
    ended: counter("deltavee_migrations_ended_total", "Migrations that are over, by how they ended.", [
      SIDE,
      "outcome",
    ]),
    running: gauge("deltavee_migrations_running", "Migrations under way, by their phase.", [SIDE, "phase"]),
    phaseSeconds: histogram(
      "deltavee_phase_duration_seconds",
      "How long phases took that are over.",
      DURATION_SECONDS,
      [SIDE, "phase"],
    ),
    durationSeconds: histogram(
      "deltavee_migration_duration_seconds",
      "How long migrations took from their beginning to their end.",
      DURATION_SECONDS,
      [SIDE, "outcome"],
    ),
    iterations: histogram(
      "deltavee_migration_iterations",
      "Passes over dirty pages that completed migrations took.",
      [1, 2, 3, 5, 10, 20, 50, 100, 200],
      [SIDE],
    ),

    downtimeSeconds: histogram(
      "deltavee_downtime_seconds",
      "How long guests stood still at the switchover, as far as this side can see it.",
      STANDSTILL_SECONDS,
      [SIDE],
    ),
    downtimeForecastErrorSeconds: histogram(
      "deltavee_downtime_forecast_error_seconds",
      "How far the downtime was from what was forecast when the guest was stopped, and whether it was longer or shorter.",
      STANDSTILL_SECONDS,
      ["actual"],
    ),
    durationForecastErrorRatio: histogram(
      "deltavee_duration_forecast_error_ratio",
      "How far the whole time was from what was forecast soon after the beginning, as a part of the forecast.",
      ERROR_RATIOS,
      ["actual"],
    ),

    handedOverBytes: counter(
      "deltavee_handed_over_bytes_total",
      "What hypervisors have handed over to be sent, or what was given to them.",
      [SIDE],
    ),
    wireBytes: counter("deltavee_wire_bytes_total", "What was sent on links, all headers included.", [SIDE]),
    wireRatio: histogram(
      "deltavee_wire_ratio",
      "What completed migrations have sent, as a part of what their hypervisors handed over.",
      WIRE_RATIOS,
      [],
    ),
    guestPages: counter(
      "deltavee_guest_pages_total",
      "Pages of guests that were dealt with, by what they were found to be.",
      ["class"],
    ),
    guestBytes: counter("deltavee_guest_bytes_total", "The same as bytes of the guests' memory.", ["class"]),
    deltaBytes: counter("deltavee_delta_bytes_total", "What the pages of class delta were coded to."),

    cacheHits: counter("deltavee_page_cache_hits_total", "Pages whose last content was in the page cache."),
    cacheMisses: counter("deltavee_page_cache_misses_total", "Pages whose last content was not there."),
    cacheEvictions: counter("deltavee_page_cache_evictions_total", "Pages that had to make room for others."),
    cacheBytes: gauge(
      "deltavee_page_cache_bytes",
      "Page caches of the migrations under way: what they hold.",
    ),
    cacheLimitBytes: gauge("deltavee_page_cache_limit_bytes", "What they may hold."),

    linkBytesPerSecond: gauge(
      "deltavee_link_bytes_per_second",
      "What the links of the migrations under way carry together, as measured by what arrives.",
      [SIDE],
    ),
    inFlightBytes: gauge("deltavee_in_flight_bytes", "Sent, and not yet acknowledged.", [SIDE]),
    roundTripSeconds: gauge(
      "deltavee_round_trip_seconds",
      "The longest round trip among migrations under way.",
    ),
    remainingBytes: gauge(
      "deltavee_remaining_bytes",
      "Dirty pages that migrations under way have yet to send.",
    ),
    dirtyPagesPerSecond: gauge(
      "deltavee_dirty_pages_per_second",
      "What the guests of migrations under way dirty, together.",
    ),
    linkLosses: counter("deltavee_link_losses_total", "Connections of tunnels that broke under way.", [SIDE]),
    linkOutageSeconds: histogram(
      "deltavee_link_outage_seconds",
      "How long there was no connection, where one was made again.",
      [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300],
      [SIDE],
    ),
    resentBytes: counter("deltavee_resent_bytes_total", "What was sent again since it had not arrived.", [
      SIDE,
    ]),
    requestedBytes: counter(
      "deltavee_postcopy_requested_bytes_total",
      "Post-copy: memory that guests had to wait for.",
    ),

    decisions: counter(
      "deltavee_decisions_total",
      "Choices that were made under way, by what they were about.",
      ["subject"],
    ),
    notices: counter("deltavee_notices_total", "Things that a person should know, and that ended nothing.", [
      SIDE,
    ]),
    errors: counter("deltavee_errors_total", "Errors, by their code (docs/errors.md).", ["code"]),

    vmWireBytes: gauge(
      "deltavee_vm_wire_bytes",
      "By VM, where VMs are told apart: what was sent of it so far.",
      ["vm"],
    ),
    vmRemainingBytes: gauge("deltavee_vm_remaining_bytes", "By VM: dirty pages yet to be sent.", ["vm"]),
    vmForecastDowntimeSeconds: gauge(
      "deltavee_vm_forecast_downtime_seconds",
      "By VM: how long it would stand still if it were stopped now.",
      ["vm"],
    ),
  };
}
