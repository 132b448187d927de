// The guest's heartbeat: a datagram each 2 ms to the client host (environment LAB_CLIENT, port 7001), sent before
// anything else in the guest may run, so that a beat that is late or missing was the machine's doing and not that of
// other programs. Each beat does the same small piece of work and tells how long all of it has taken so far: by that the
// receiver knows how fast the guest's processor is.
//
// A datagram is four integers of 64 bits, most significant byte first: beats sent before this one; the guest's monotonic
// clock in ns; beats that were due by then (the timer's own count: more than were sent when the guest was too late for
// some); ns spent on the work of all beats before this one.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PORT 7001
#define PERIOD_NS 2000000
// Some 20 us on an emulated processor.
#define WORK_ROUNDS 2000

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Arithmetic alone: memory may be slow for reasons of its own (a page that is tracked, or not there yet).
static uint64_t work(uint64_t x) {
    for (int i = 0; i < WORK_ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(void) {
    const char *client = getenv("LAB_CLIENT");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (client == NULL || inet_pton(AF_INET, client, &to.sin_addr) != 1) {
        fprintf(stderr, "heartbeat: LAB_CLIENT is no address\n");
        return 1;
    }
    struct sched_param first = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &first) < 0) fail("sched_setscheduler");
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0) fail("mlockall");
    int out = socket(AF_INET, SOCK_DGRAM, 0);
    if (out < 0) fail("socket");
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec period = {.it_interval.tv_nsec = PERIOD_NS, .it_value.tv_nsec = PERIOD_NS};
    if (timer < 0 || timerfd_settime(timer, 0, &period, NULL) < 0) fail("timerfd");

    uint64_t due = 0, spent_ns = 0, x = 88172645463325252u;
    for (uint64_t sent = 0;; sent++) {
        uint64_t expired;
        if (read(timer, &expired, sizeof expired) != sizeof expired) fail("read");
        due += expired;
        uint64_t start_ns = now_ns();
        uint64_t beat[4] = {htobe64(sent), htobe64(start_ns), htobe64(due), htobe64(spent_ns)};
        // A beat that cannot leave is a beat that was lost.
        sendto(out, beat, sizeof beat, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to);
        uint64_t work_ns = now_ns();
        x = work(x);
        // Its result is used, or the compiler would leave it out.
        if (x == 0) return 1;
        spent_ns += now_ns() - work_ns;
    }
}
