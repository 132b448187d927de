/*
 * The lab's paced writer: dirties pages of a working set at a set rate, and changes a
 * set number of bytes in each, to other values than were there. It says what it has
 * really done (progress.h), and can prove that every page holds what it wrote last
 * (guest/pages.h). Knows nothing of migration.
 *   writer PORT WORKING_SET_MIB PAGES_PER_SECOND BYTES_PER_PAGE random|text run|scattered
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "../../guest/pages.h"
#include "progress.h"

static uint32_t page_count;
static uint32_t bytes_per_page;
static int is_text, is_scattered;
/* Modulo 2^32, as the generations of the pages add up to it. */
static uint32_t pages_written;
/* Owed, but not written in time: what the guest's processor did not manage. */
static uint64_t pages_missed;

/* ---- Which page is next -------------------------------------------------------- */

static uint32_t next_page, page_stride;

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A walk that meets every page once before it meets any again, so that the pages
   written in a time are that many dirty pages, in no order that could be guessed. */
static void walk_start(void)
{
    page_stride = (uint32_t)((uint64_t)page_count * 618 / 1000) | 1;
    while (greatest_common_divisor(page_stride, page_count) != 1)
        page_stride++;
}

static uint32_t walk_next(void)
{
    uint32_t page = next_page;
    next_page = (uint32_t)(((uint64_t)page + page_stride) % page_count);
    return page;
}

/* ---- What changes in it -------------------------------------------------------- */

/* 0x80 in every byte of `word` that is 0, and nothing in the others. */
static uint32_t zero_bytes(uint32_t word)
{
    return ~(((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word | 0x7f7f7f7fu);
}

static uint32_t next_text_word(void)
{
    static const char *text;
    static uint32_t words_left;
    if (words_left == 0) {
        uint32_t choice = random_below(&random_source, 32 + 64 + 32);
        if (choice < 32)
            text = words_of_4 + choice * 4, words_left = 1;
        else if (choice < 96)
            text = words_of_8 + (choice - 32) * 8, words_left = 2;
        else
            text = words_of_12 + (choice - 96) * 12, words_left = 3;
    }
    uint32_t word = *(const text_word *)text;
    text += 4;
    words_left--;
    return word;
}

/*
 * `old` with other values in all of the bytes that `mask` covers (0xff each): the
 * bytes to change are counted, so none may happen to stay the same.
 */
static uint32_t changed(uint32_t old, uint32_t mask)
{
    uint32_t fresh = is_text ? next_text_word() : random_next(&random_source);
    /* The lowest bit turns one letter into its neighbour. */
    fresh ^= zero_bytes(fresh ^ old) >> 7;
    return (old & ~mask) | (fresh & mask);
}

static void change_bytes(uint32_t page, uint32_t index, uint32_t mask)
{
    change_word(page, index, changed(words_of_page(page)[index], mask));
}

static void change_run(uint32_t page)
{
    uint32_t begin = random_below(&random_source, PAGE_BYTES - bytes_per_page + 1);
    uint32_t end = begin + bytes_per_page;
    for (uint32_t index = begin / 4; index * 4 < end; index++) {
        uint32_t mask = UINT32_MAX;
        if (index * 4 < begin)
            mask <<= (begin - index * 4) * 8;
        if (index * 4 + 4 > end)
            mask &= UINT32_MAX >> (index * 4 + 4 - end) * 8;
        change_bytes(page, index, mask);
    }
}

/* One byte at a random place in each of as many equal parts of the page. */
static void change_scattered(uint32_t page)
{
    for (uint32_t part = 0; part < bytes_per_page; part++) {
        uint32_t begin = part * PAGE_BYTES / bytes_per_page;
        uint32_t end = (part + 1) * PAGE_BYTES / bytes_per_page;
        uint32_t offset = begin + random_below(&random_source, end - begin);
        change_bytes(page, offset / 4, 0xffu << offset % 4 * 8);
    }
}

static void write_next_page(void)
{
    uint32_t page = walk_next();
    records[page].generation++;
    records[page].sum += TAG_PER_GENERATION;
    records[page].weighted_sum += TAG_PER_GENERATION * PAGE_WORDS;
    if (is_scattered)
        change_scattered(page);
    else
        change_run(page);
    pages_written++;
}

/* ---- What it says ---------------------------------------------------------------- */

static void say_progress(void)
{
    char line[96];
    progress_say(line, snprintf(line, sizeof line, "progress pages=%u missedPages=%llu\n", pages_written,
                                (unsigned long long)pages_missed));
}

static void say_verified(void)
{
    uint32_t damaged = 0, generations = 0;
    for (uint32_t page = 0; page < page_count; page++) {
        generations += records[page].generation;
        damaged += !page_is_good(page);
    }
    /* Records may be old together with their pages: they agree with them, but not with
       the number of writes. Told as one page more than can be pointed at. */
    damaged += generations != pages_written;
    char line[96];
    progress_say(line, snprintf(line, sizeof line, "verified pages=%u damagedPages=%u\n", page_count, damaged));
}

/* ---- Start ------------------------------------------------------------------------ */

static uint32_t number_of(const char *text, uint32_t min, uint32_t max, const char *name)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (*text == 0 || *end != 0 || number < min || number > max) {
        fprintf(stderr, "writer: %s must be from %u to %u, not \"%s\"\n", name, min, max, text);
        exit(2);
    }
    return (uint32_t)number;
}

/* Which of two words it is: 1 for the second. */
static int word_of(const char *text, const char *first, const char *second)
{
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0) {
        fprintf(stderr, "writer: %s or %s, not \"%s\"\n", first, second, text);
        exit(2);
    }
    return strcmp(text, second) == 0;
}

/* The kernel promises more memory than there is, and would kill us in mid-fill. */
#define KERNEL_RESERVE_BYTES (32ull << 20)

static void take_memory(void)
{
    uint64_t memory_bytes = (uint64_t)page_count * PAGE_BYTES;
    uint64_t record_bytes = (uint64_t)page_count * sizeof(struct page_record);
    struct sysinfo info;
    sysinfo(&info);
    /* What the page cache holds can be had too; how much of it, only the kernel knows. */
    uint64_t free_bytes = ((uint64_t)info.freeram + info.bufferram) * info.mem_unit;
    if (memory_bytes + record_bytes + KERNEL_RESERVE_BYTES > free_bytes) {
        fprintf(stderr, "writer: a working set of %llu MiB does not fit into %llu MiB\n",
                (unsigned long long)memory_bytes >> 20, (unsigned long long)free_bytes >> 20);
        exit(2);
    }
    void *memory = mmap(0, memory_bytes + record_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    page_memory = memory;
    records = (struct page_record *)((char *)memory + memory_bytes);
    for (uint32_t page = 0; page < page_count; page++) {
        if (is_text)
            write_text_page(page);
        else
            write_random_page(page);
    }
}

#define TURN_PAGES_MAX 64u
#define SLEEP_MS 2

/* Owed longer than 0.1 s is missed: without a limit, a long pause would come back as
   a burst that no real program makes. */
static void run(uint32_t pages_per_second)
{
    uint64_t owed_max = pages_per_second / 10 + 1, owed = 0;
    uint64_t owed_rest = 0; /* in pages / 10^9: the rate is exact over time */
    uint64_t seen = now_nanoseconds(), next_progress = seen;
    for (;;) {
        uint64_t now = now_nanoseconds();
        owed_rest += (now - seen) * pages_per_second;
        seen = now;
        owed += owed_rest / NANOSECONDS;
        owed_rest %= NANOSECONDS;
        if (owed > owed_max) {
            pages_missed += owed - owed_max;
            owed = owed_max;
        }
        for (uint32_t turn = 0; owed > 0 && turn < TURN_PAGES_MAX; turn++, owed--)
            write_next_page();
        if (now >= next_progress) {
            say_progress();
            next_progress = now + PROGRESS_PERIOD_NANOSECONDS;
        }
        if (progress_poll(owed > 0 ? 0 : SLEEP_MS)) {
            say_verified();
            seen = now_nanoseconds(); /* what is verified is not written meanwhile, nor missed */
        }
    }
}

int main(int count, char **arguments)
{
    if (count != 7) {
        fputs("usage: writer PORT WORKING_SET_MIB PAGES_PER_SECOND BYTES_PER_PAGE random|text "
              "run|scattered\n", stderr);
        return 2;
    }
    uint32_t port = number_of(arguments[1], 1, 65535, "port");
    page_count = number_of(arguments[2], 1, 1u << 20, "working set in MiB") * ((1u << 20) / PAGE_BYTES);
    uint32_t pages_per_second = number_of(arguments[3], 0, 1000000, "pages per second");
    bytes_per_page = number_of(arguments[4], 1, PAGE_BYTES, "bytes per page");
    is_text = word_of(arguments[5], "random", "text");
    is_scattered = word_of(arguments[6], "run", "scattered");
    random_start(&random_source, 1);
    walk_start();
    take_memory();
    progress_listen((uint16_t)port);
    run(pages_per_second);
}
