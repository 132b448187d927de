// A cable with a length and with noise on it: joins two network namespaces by a tap device in each, hands every frame
// over after a fixed delay, and loses some by chance, so that TCP really sees a round trip and losses. For kernels
// without netem. The rate is not its business: a token bucket in front of each device (tc, tbf) sees to that.
//
//   delay-line NETNS DEVICE NETNS DEVICE DELAY_US LOSS_PER_MILLION SEED
//
// Prints "ready" when both devices are there; they go when it ends. On SIGTERM it prints what it has carried, a line of
// JSON for each direction. Where nothing is lost, TCP's segments cross in bunches as large as the kernel makes them
// (segmentation offload), which costs a tenth; where something is, each frame is a packet of its own.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

// With its virtio header; a frame of offloaded segmentation holds up to 64 KiB of IP.
#define FRAME_BYTES_MAX (65536 + 64)
// What is under way in one direction: 1 Gbit/s for half a second. Untouched memory costs nothing.
#define LINE_BYTES (64u << 20)
// Frames taken in a row before the other direction has its turn.
#define TURN_FRAMES 64

struct frame {
    uint64_t due_ns;
    uint32_t bytes;
};

// A ring of frames, each a header and its bytes, never wrapped around the end: what does not fit there begins anew.
struct line {
    int from, to;
    uint8_t *ring;
    size_t head, tail;  // next to leave, next to enter; equal: empty
    size_t wrap;        // where the last frame before the ring's end ends; only valid while tail < head
    uint64_t random;
    uint64_t frames, bytes, lost, dropped;
};

static uint64_t delay_ns;
static uint64_t loss_threshold;  // of 2^32
static volatile sig_atomic_t ended;

static void fail(const char *what) {
    fprintf(stderr, "delay-line: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// A tap device in a network namespace of `ip netns`; it stays there when this process goes on to another.
static int open_tap(const char *netns, const char *device, bool is_segmenting) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0) fail(path);
    close(namespace);
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
    if (ioctl(tap, TUNSETIFF, &request) < 0) fail(device);
    // Checksums need not be made: both ends are this kernel.
    unsigned offload = TUN_F_CSUM | (is_segmenting ? TUN_F_TSO4 | TUN_F_TSO6 : 0);
    if (ioctl(tap, TUNSETOFFLOAD, offload) < 0) fail("TUNSETOFFLOAD");
    return tap;
}

static struct line make_line(int from, int to, uint64_t seed) {
    struct line line = {.from = from, .to = to};
    line.ring = mmap(NULL, LINE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (line.ring == MAP_FAILED) fail("mmap");
    line.random = seed * 0x9e3779b97f4a7c15u | 1;
    return line;
}

// xorshift64*: the upper half of the product, which is the good one.
static bool is_lost(struct line *line) {
    uint64_t x = line->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    line->random = x;
    return (x * 0x2545f4914f6cdd1du) >> 32 < loss_threshold;
}

// Room for the largest frame, or NULL: the line is full.
static struct frame *room(struct line *line) {
    const size_t need = sizeof(struct frame) + FRAME_BYTES_MAX;
    if (line->head == line->tail) line->head = line->tail = 0;
    if (line->tail >= line->head) {
        if (LINE_BYTES - line->tail > need) return (struct frame *)(line->ring + line->tail);
        // An empty ring was rewound above, so the head is past this room only if something has left already.
        if (line->head <= need) return NULL;
        line->wrap = line->tail;
        line->tail = 0;
    }
    if (line->head - line->tail <= need) return NULL;
    return (struct frame *)(line->ring + line->tail);
}

static struct frame *first(struct line *line) {
    if (line->head == line->tail) return NULL;
    if (line->head > line->tail && line->head == line->wrap) {
        line->head = 0;
        if (line->head == line->tail) return NULL;
    }
    return (struct frame *)(line->ring + line->head);
}

static size_t stride(uint32_t bytes) {
    return (sizeof(struct frame) + bytes + 7) & ~(size_t)7;
}

// False when nothing more is to be read now.
static bool take(struct line *line) {
    static uint8_t surplus[FRAME_BYTES_MAX];
    struct frame *frame = room(line);
    uint8_t *at = frame == NULL ? surplus : (uint8_t *)(frame + 1);
    ssize_t bytes = read(line->from, at, FRAME_BYTES_MAX);
    if (bytes < 0) {
        // EBADFD, EIO: the device is not up yet, or not any more.
        if (errno == EAGAIN || errno == EINTR || errno == EBADFD || errno == EIO) return false;
        fail("read");
    }
    line->frames++;
    line->bytes += (uint64_t)bytes;
    if (is_lost(line)) {
        line->lost++;
    } else if (frame == NULL) {
        line->dropped++;
    } else {
        frame->due_ns = now_ns() + delay_ns;
        frame->bytes = (uint32_t)bytes;
        line->tail += stride(frame->bytes);
    }
    return true;
}

// Hands over what is due, and returns when the next is: UINT64_MAX if there is none.
static uint64_t deliver(struct line *line) {
    for (struct frame *frame; (frame = first(line)) != NULL;) {
        if (frame->due_ns > now_ns()) return frame->due_ns;
        // A device that is down takes nothing, as a cable that is not plugged in.
        if (write(line->to, frame + 1, frame->bytes) < 0) line->dropped++;
        line->head += stride(frame->bytes);
    }
    return UINT64_MAX;
}

static void end(int signal) {
    (void)signal;
    ended = 1;
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: delay-line NETNS DEVICE NETNS DEVICE DELAY_US LOSS_PER_MILLION SEED\n");
        return 2;
    }
    delay_ns = strtoull(argv[5], NULL, 10) * 1000;
    uint64_t loss_per_million = strtoull(argv[6], NULL, 10);
    loss_threshold = (loss_per_million << 32) / 1000000;
    uint64_t seed = strtoull(argv[7], NULL, 10);
    int a = open_tap(argv[1], argv[2], loss_per_million == 0);
    int b = open_tap(argv[3], argv[4], loss_per_million == 0);
    struct line lines[2] = {make_line(a, b, 2 * seed + 1), make_line(b, a, 2 * seed + 2)};
    // Sleeps end when they should, not up to 50 us later.
    prctl(PR_SET_TIMERSLACK, 1);
    // Not SA_RESTART, and only while waiting: a signal is never missed.
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    sigset_t blocked, none;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    puts("ready");
    fflush(stdout);

    while (!ended) {
        uint64_t due_ns = UINT64_MAX;
        bool is_more = false;
        for (int i = 0; i < 2; i++) {
            int left = TURN_FRAMES;
            while (left > 0 && take(&lines[i])) left--;
            is_more |= left == 0;
            uint64_t next_ns = deliver(&lines[i]);
            if (next_ns < due_ns) due_ns = next_ns;
        }
        if (is_more) continue;
        uint64_t at_ns = now_ns();
        uint64_t wait_ns = due_ns <= at_ns ? 0 : due_ns - at_ns;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u)};
        struct pollfd devices[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        if (ppoll(devices, 2, due_ns == UINT64_MAX ? NULL : &wait, &none) < 0 && errno != EINTR) fail("ppoll");
    }
    for (int i = 0; i < 2; i++) {
        printf("{\"frames\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"dropped\":%" PRIu64 "}\n",
               lines[i].frames, lines[i].bytes, lines[i].lost, lines[i].dropped);
    }
    return 0;
}
