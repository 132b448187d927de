/*
 * The bare-metal test guest: runs workload.h on a PC that has no more than a PIC, a
 * PIT and a UART, under QEMU -kernel and under v86, which brings no BIOS, so that
 * nothing here relies on what a BIOS would have set up.
 * Sources: Multiboot 0.6.96 section 3.3 (boot information); data sheets of Intel
 * 8259A (PIC), Intel 8254 (PIT) and National PC16550D (UART).
 */
#include "workload.h"

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* ---- Serial line (COM1, polled) --------------------------------------------- */

enum {
    UART = 0x3f8,
    UART_DATA = UART,
    UART_INTERRUPTS = UART + 1,
    UART_FIFO = UART + 2,
    UART_LINE_CONTROL = UART + 3,
    UART_MODEM_CONTROL = UART + 4,
    UART_LINE_STATUS = UART + 5,
    UART_CAN_READ = 0x01,
    UART_CAN_WRITE = 0x20,
    UART_FIFO_BYTES = 16,
};

static void serial_start(void)
{
    out8(UART_INTERRUPTS, 0);
    out8(UART_LINE_CONTROL, 0x80); /* next two writes set the divisor */
    out8(UART_DATA, 1);            /* 115200 baud */
    out8(UART_INTERRUPTS, 0);
    out8(UART_LINE_CONTROL, 0x03); /* 8 bits, no parity, 1 stop bit */
    out8(UART_FIFO, 0x07);         /* FIFOs on and emptied */
    out8(UART_MODEM_CONTROL, 0x03);
}

/* When nobody takes the bytes, the rest of the line is dropped: waiting for ever
   would also stop the clock, as heartbeats are printed in the timer interrupt. */
#define SERIAL_POLLS_MAX 65536u

void platform_print(const char *bytes, uint32_t length)
{
    uint32_t flags;
    __asm__ volatile("pushfl; popl %0; cli" : "=r"(flags) : : "memory");
    for (uint32_t i = 0; i < length; i++) {
        uint32_t polls = 0;
        while ((in8(UART_LINE_STATUS) & UART_CAN_WRITE) == 0 && ++polls < SERIAL_POLLS_MAX)
            ;
        if (polls == SERIAL_POLLS_MAX)
            break;
        out8(UART_DATA, (uint8_t)bytes[i]);
    }
    __asm__ volatile("pushl %0; popfl" : : "r"(flags) : "memory", "cc");
}

/* ---- Timer ------------------------------------------------------------------ */

enum {
    PIT_HZ = 1193182,
    PIT_CHANNEL_0 = 0x40,
    PIT_CHANNEL_2 = 0x42,
    PIT_CONTROL = 0x43,
    PIT_CHANNEL_2_PERIOD = 65535, /* not 65536: v86 takes the 0 that stands for it as 65535 */
    SYSTEM_CONTROL = 0x61,        /* bit 0: channel 2 counts, bit 1: it is heard */
    PIC_1 = 0x20,
    PIC_2 = 0xa0,
    PIC_END_OF_INTERRUPT = 0x20,
    VECTOR_COUNT = 0x30,
    VECTOR_IRQ_0 = 0x20, /* the PC's own 0x08 is also an exception's */
};

static volatile uint32_t ticks;

uint32_t platform_ticks(void)
{
    return ticks;
}

void platform_wait_tick(uint32_t seen_ticks)
{
    for (;;) {
        __asm__ volatile("cli" : : : "memory");
        if (ticks != seen_ticks)
            break;
        /* sti takes effect after the next instruction: no tick can slip in between. */
        __asm__ volatile("sti; hlt" : : : "memory");
    }
    __asm__ volatile("sti" : : : "memory");
}

static int32_t tick_counts;   /* PIT counts in one tick */
static int32_t behind_counts; /* how late the last interrupt was */
static int32_t last_count;

static int32_t read_channel_2(void)
{
    out8(PIT_CONTROL, 0x80); /* latch, so that both bytes are of one moment */
    int32_t low = in8(PIT_CHANNEL_2);
    return low | in8(PIT_CHANNEL_2) << 8;
}

/*
 * On a busy host interrupts get lost, as the emulated PIT makes one of two that are
 * due at once; each would slow the workload down. So channel 2, which only counts
 * (down, around in 55 ms), tells how late this interrupt is; whole ticks of lateness
 * are the lost ones. What is lost beyond 55 ms at once stays lost.
 */
static void count_ticks(void)
{
    int32_t count = read_channel_2();
    int32_t elapsed_counts = last_count - count;
    if (elapsed_counts < 0)
        elapsed_counts += PIT_CHANNEL_2_PERIOD;
    last_count = count;
    ticks++;
    behind_counts += elapsed_counts - tick_counts;
    for (; behind_counts >= tick_counts; behind_counts -= tick_counts)
        ticks++;
    if (behind_counts < 0) /* went around, or the clock's phase is new after a migration */
        behind_counts = 0;
}

void timer_interrupt(void)
{
    out8(PIC_1, PIC_END_OF_INTERRUPT);
    count_ticks();
    workload_tick(ticks);
    /* Commands are polled here: a tick is soon enough, and one interrupt source less. */
    for (int i = 0; i < UART_FIFO_BYTES && (in8(UART_LINE_STATUS) & UART_CAN_READ) != 0; i++)
        workload_command((char)in8(UART_DATA));
}

struct gate {
    uint16_t offset_low, selector, type, offset_high;
};
static struct gate gates[VECTOR_COUNT];

void timer_entry(void);
void ignored_entry(void);
void exception_entry(void);

static void interrupts_start(void)
{
    for (uint32_t vector = 0; vector < VECTOR_COUNT; vector++) {
        uint32_t entry = (uint32_t)(vector == VECTOR_IRQ_0 ? timer_entry
                                    : vector > VECTOR_IRQ_0 ? ignored_entry
                                                            : exception_entry);
        gates[vector] = (struct gate){
            .offset_low = (uint16_t)entry,
            .selector = 0x08,
            .type = 0x8e00, /* present 32-bit interrupt gate */
            .offset_high = (uint16_t)(entry >> 16),
        };
    }
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) table = {sizeof gates - 1, (uint32_t)gates};
    __asm__ volatile("lidt %0" : : "m"(table), "m"(gates));

    static const struct {
        uint8_t offset, value_1, value_2;
    } words[] = {
        {0, 0x11, 0x11},                         /* ICW1: cascade, four words */
        {1, VECTOR_IRQ_0, VECTOR_IRQ_0 + 8},     /* ICW2: vectors */
        {1, 0x04, 0x02},                         /* ICW3: second PIC at IRQ 2 */
        {1, 0x01, 0x01},                         /* ICW4: 8086 mode */
        {1, 0xfe, 0xff},                         /* mask: only IRQ 0 */
    };
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        out8((uint16_t)(PIC_1 + words[i].offset), words[i].value_1);
        out8((uint16_t)(PIC_2 + words[i].offset), words[i].value_2);
    }
    tick_counts = (int32_t)((PIT_HZ + tick_hz / 2) / tick_hz);
    out8(SYSTEM_CONTROL, (in8(SYSTEM_CONTROL) & ~3) | 1);
    out8(PIT_CONTROL, 0xb4); /* channel 2, low byte then high byte, rate generator */
    out8(PIT_CHANNEL_2, PIT_CHANNEL_2_PERIOD & 0xff);
    out8(PIT_CHANNEL_2, PIT_CHANNEL_2_PERIOD >> 8);
    out8(PIT_CONTROL, 0x34); /* channel 0, the same */
    out8(PIT_CHANNEL_0, (uint8_t)tick_counts);
    out8(PIT_CHANNEL_0, (uint8_t)(tick_counts >> 8));
    last_count = read_channel_2();
    __asm__ volatile("sti" : : : "memory");
}

/* ---- Errors ----------------------------------------------------------------- */

_Noreturn void platform_halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

static _Noreturn void refuse_text(const char *text)
{
    struct line line = {.length = 0};
    put_text(&line, text);
    refuse(&line);
}

_Noreturn void exception(void)
{
    refuse_text("ERROR exception of the CPU");
}

/* ---- Memory and start -------------------------------------------------------- */

#define MULTIBOOT_BOOT_MAGIC 0x2badb002u
#define MULTIBOOT_HAS_COMMAND_LINE 0x04u
#define MULTIBOOT_HAS_MEMORY_MAP 0x40u

struct multiboot_info {
    uint32_t flags;
    uint32_t memory_lower, memory_upper; /* not used: v86 leaves them 0 */
    uint32_t boot_device;
    const char *command_line;
    uint32_t modules[2], symbols[4];
    uint32_t memory_map_bytes, memory_map;
};

struct memory_map_entry {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type; /* 1: RAM */
} __attribute__((packed));

extern char image_end[];

struct region {
    uint32_t start, end;
};

/* The largest piece of RAM behind our image and below 4 GiB, in whole pages. */
static struct region find_memory(const struct multiboot_info *info)
{
    struct region best = {0, 0};
    uint32_t position = info->memory_map;
    uint32_t map_end = position + info->memory_map_bytes;
    while (position < map_end) {
        const struct memory_map_entry *entry = (const struct memory_map_entry *)position;
        uint64_t start = entry->base, end = entry->base + entry->length;
        position += entry->size + sizeof entry->size;
        if (start < (uint32_t)image_end)
            start = (uint32_t)image_end;
        start = (start + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
        if (end > 0xfffff000u)
            end = 0xfffff000u;
        end &= ~(uint64_t)(PAGE_BYTES - 1);
        if (entry->type == 1 && start < end && end - start > best.end - best.start)
            best = (struct region){(uint32_t)start, (uint32_t)end};
    }
    return best;
}

_Noreturn void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    serial_start();
    if (magic != MULTIBOOT_BOOT_MAGIC)
        refuse_text("ERROR not started by a multiboot loader");
    if ((info->flags & MULTIBOOT_HAS_MEMORY_MAP) == 0)
        refuse_text("ERROR the loader gave no memory map");
    /* The command line and the map lie somewhere in RAM, perhaps where the working
       set will be: both are used up before the first page is written. */
    workload_configure((info->flags & MULTIBOOT_HAS_COMMAND_LINE) != 0 ? info->command_line : "");
    struct region memory = find_memory(info);
    uint32_t pages = pages_wanted();
    uint32_t record_pages = (pages * sizeof(struct page_record) + PAGE_BYTES - 1) / PAGE_BYTES;
    uint32_t pages_there = (memory.end - memory.start) / PAGE_BYTES;
    if (pages + record_pages > pages_there) {
        struct line line = {.length = 0};
        put_text(&line, "ERROR the working set does not fit:");
        put_field(&line, "ws", ws_kib);
        put_field(&line, "neededKiB", (pages + record_pages) * (PAGE_BYTES / 1024));
        put_field(&line, "availableKiB", pages_there * (PAGE_BYTES / 1024));
        refuse(&line);
    }
    uint32_t base = memory.start + record_pages * PAGE_BYTES;
    workload_fill((void *)base, (void *)memory.start, base);
    interrupts_start();
    workload_run();
}
