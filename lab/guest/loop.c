/*
 * Runs a command over and over, and says how often it has ended and what number it
 * printed last (progress.h): the throughput of a workload that ends by itself, and the
 * speed of the guest as a benchmark in it sees it. Knows nothing of the command.
 *   loop PORT PERIOD_MS COMMAND    PERIOD_MS 0: without pause; COMMAND is a line of sh
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>

#include "progress.h"

/* Written by the thread that runs the command, read by the one that says so. */
static atomic_uint runs, failed_runs;
static _Atomic double last_number = -1;

/* The last number in a line, or -1. */
static double number_at_end(const char *line)
{
    double number = -1;
    while (*line != 0) {
        char *end = (char *)line;
        if (isdigit((unsigned char)*line))
            number = strtod(line, &end);
        line = end > line ? end : line + 1;
    }
    return number;
}

static void run_once(const char *command)
{
    FILE *output = popen(command, "r");
    if (output == 0)
        fail("popen");
    char line[256];
    double number = -1;
    while (fgets(line, sizeof line, output) != 0) {
        double found = number_at_end(line);
        number = found >= 0 ? found : number;
    }
    if (pclose(output) != 0)
        failed_runs++;
    if (number >= 0)
        last_number = number;
    runs++;
}

static uint64_t period_nanoseconds;

static void *run_forever(void *command)
{
    for (uint64_t next = now_nanoseconds();;) {
        run_once(command);
        next += period_nanoseconds;
        uint64_t now = now_nanoseconds();
        if (now >= next) {
            next = now; /* what was missed is not made up for */
            continue;
        }
        struct timespec rest = {(time_t)((next - now) / NANOSECONDS), (long)((next - now) % NANOSECONDS)};
        nanosleep(&rest, 0);
    }
    return 0;
}

int main(int count, char **arguments)
{
    int port = count == 4 ? atoi(arguments[1]) : 0;
    int period_ms = count == 4 ? atoi(arguments[2]) : -1;
    if (port < 1 || port > 65535 || period_ms < 0) {
        fputs("usage: loop PORT PERIOD_MS COMMAND\n", stderr);
        return 2;
    }
    period_nanoseconds = (uint64_t)period_ms * (NANOSECONDS / 1000);
    progress_listen((uint16_t)port);
    pthread_t runner;
    if (pthread_create(&runner, 0, run_forever, arguments[3]) != 0)
        fail("pthread_create");
    for (;;) {
        char line[128];
        int length = snprintf(line, sizeof line, "progress runs=%u failedRuns=%u", runs, failed_runs);
        if (last_number >= 0)
            length += snprintf(line + length, sizeof line - (size_t)length, " value=%.3f", last_number);
        line[length++] = '\n';
        progress_say(line, length);
        for (uint64_t next = now_nanoseconds() + PROGRESS_PERIOD_NANOSECONDS, now; (now = now_nanoseconds()) < next;)
            progress_poll((int)((next - now) / (NANOSECONDS / 1000)) + 1);
    }
}
