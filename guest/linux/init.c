/*
 * The Linux test guest: the one program of an initramfs. It runs workload.h, the same
 * workload with the same options and serial protocol as the bare-metal guest, under a
 * real kernel: with page tables, interrupts, a timekeeper and a scheduler that live in
 * the pages being migrated. Knows nothing of the hypervisor.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../workload.h"

#define NANOSECONDS 1000000000ull

static _Noreturn void refuse_text(const char *text)
{
    struct line line = {.length = 0};
    put_text(&line, text);
    refuse(&line);
}

/* One write() per line: the terminal lets no other writer in between. */
void platform_print(const char *bytes, uint32_t length)
{
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);
        if (written <= 0)
            return;
        bytes += written;
        length -= (uint32_t)written;
    }
}

_Noreturn void platform_halt(void)
{
    for (;;)
        pause(); /* the end of the first process would be a kernel panic */
}

/* ---- Time ------------------------------------------------------------------- */

static uint64_t now_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

static uint64_t start_nanoseconds;

uint32_t platform_ticks(void)
{
    return (uint32_t)((now_nanoseconds() - start_nanoseconds) * tick_hz / NANOSECONDS);
}

void platform_wait_tick(uint32_t seen_ticks)
{
    /* Rounded up: a sleep that ends just before the tick would turn into a spin. */
    uint64_t next_tick = (now_nanoseconds() - start_nanoseconds) * tick_hz / NANOSECONDS + 1;
    if ((uint32_t)(next_tick - 1) != seen_ticks)
        return;
    uint64_t until = start_nanoseconds + (next_tick * NANOSECONDS + tick_hz - 1) / tick_hz;
    struct timespec time = {(time_t)(until / NANOSECONDS), (long)(until % NANOSECONDS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, 0);
}

/* The heartbeat must not wait for the workload, as it is what downtime is measured by. */
static void *run_ticks(void *unused)
{
    struct sched_param priority = {.sched_priority = 50};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0)
        refuse_text("ERROR no real-time priority for the heartbeat");
    for (uint32_t ticks = platform_ticks();;) {
        platform_wait_tick(ticks);
        ticks = platform_ticks();
        workload_tick(ticks);
        char commands[16];
        ssize_t count = read(STDIN_FILENO, commands, sizeof commands);
        for (ssize_t i = 0; i < count; i++)
            workload_command(commands[i]);
    }
    return unused;
}

/* ---- Start ------------------------------------------------------------------ */

static void console_start(void)
{
    struct termios terminal;
    if (tcgetattr(STDIN_FILENO, &terminal) != 0)
        return;
    cfmakeraw(&terminal);
    terminal.c_cc[VMIN] = 0; /* read() takes what is there and does not wait */
    terminal.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    /* Only a dying kernel may still write between our lines. */
    klogctl(8 /* SYSLOG_ACTION_CONSOLE_LEVEL */, 0, 1);
}

static const char *read_command_line(void)
{
    static char text[4096];
    mount("proc", "/proc", "proc", 0, 0);
    int file = open("/proc/cmdline", O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (length < 0)
        refuse_text("ERROR cannot read /proc/cmdline");
    close(file);
    return text;
}

static void *get_memory(uint64_t bytes)
{
    void *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        refuse_text("ERROR no address space for the working set");
    return memory;
}

/* The kernel promises more memory than there is and would kill us in mid-fill. */
#define KERNEL_RESERVE_BYTES (16ull << 20)

int main(void)
{
    console_start();
    workload_configure(read_command_line());
    uint64_t memory_bytes = (uint64_t)pages_wanted() * PAGE_BYTES;
    uint64_t record_bytes = (uint64_t)pages_wanted() * sizeof(struct page_record);
    struct sysinfo info;
    sysinfo(&info);
    uint64_t free_bytes = (uint64_t)info.freeram * info.mem_unit;
    if (memory_bytes + record_bytes + KERNEL_RESERVE_BYTES > free_bytes) {
        struct line line = {.length = 0};
        put_text(&line, "ERROR the working set does not fit:");
        put_field(&line, "ws", ws_kib);
        put_field(&line, "neededKiB",
                  (uint32_t)((memory_bytes + record_bytes + KERNEL_RESERVE_BYTES) / 1024));
        put_field(&line, "availableKiB", (uint32_t)(free_bytes / 1024));
        refuse(&line);
    }
    workload_fill(get_memory(memory_bytes), get_memory(record_bytes), 0);
    start_nanoseconds = now_nanoseconds();
    pthread_t ticker;
    if (pthread_create(&ticker, 0, run_ticks, 0) != 0)
        refuse_text("ERROR cannot start the heartbeat");
    workload_run();
}
