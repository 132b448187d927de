/*
 * The workload of both test guests (guest.c on the bare machine, linux/init.c
 * under Linux): it fills a working set, dirties its pages at a given rate, and can
 * prove at any moment that every page holds exactly what was last written to it.
 * Knows nothing of devices, clocks or where memory comes from: the program that
 * includes it gives the four platform_ functions and calls workload_tick() and
 * workload_command(). Options and serial protocol: README.md.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include "pages.h"

/* Writes one whole line; lines of the tick handler and of the main loop never mix. */
void platform_print(const char *bytes, uint32_t length);
/* Ticks of 1/hz s since some start; wraps. */
uint32_t platform_ticks(void);
/* Gives the CPU away until platform_ticks() differs from `seen_ticks`. */
void platform_wait_tick(uint32_t seen_ticks);
_Noreturn void platform_halt(void);

/* ---- Lines of text --------------------------------------------------------- */

struct line {
    uint32_t length;
    char bytes[256];
};

static void put_char(struct line *line, char c)
{
    if (line->length < sizeof line->bytes - 1) /* print_line() needs the last one */
        line->bytes[line->length++] = c;
}

static void put_text(struct line *line, const char *text)
{
    while (*text != 0)
        put_char(line, *text++);
}

static void put_number(struct line *line, uint32_t number)
{
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0)
        put_char(line, digits[--count]);
}

static void put_field(struct line *line, const char *name, uint32_t number)
{
    put_char(line, ' ');
    put_text(line, name);
    put_char(line, '=');
    put_number(line, number);
}

static void print_line(struct line *line)
{
    line->bytes[line->length++] = '\n';
    platform_print(line->bytes, line->length);
}

/* ---- Options --------------------------------------------------------------- */

enum { PATTERN_SPARSE, PATTERN_HOT, PATTERN_PAGE, PATTERN_TEXT, PATTERN_ZERO };
enum { FILL_ZERO, FILL_RANDOM, FILL_TEXT };

static const char *const pattern_names[] = {"sparse", "hot", "page", "text", "zero", 0};
static const char *const fill_names[] = {"zero", "random", "text", 0};

static uint32_t ws_kib = 8192;
static uint32_t rate_pages_per_second = 1000;
static uint32_t pattern = PATTERN_SPARSE;
static uint32_t words_max = 8;
static uint32_t hot_pages = 256;
static uint32_t fill = FILL_ZERO;
static uint32_t heartbeat_ms = 10;
static uint32_t tick_hz = 100;
static uint32_t busy = 0;
static uint32_t seed = 1;

struct option {
    const char *key;
    uint32_t *value;
    uint32_t min, max;
    const char *const *names; /* when given, the value is an index into it */
};

/* The limits keep the arithmetic below free of overflow: the widest product is
   rate * catch-up ticks. hz starts at 19 because the PIT divides by at most 65536. */
static const struct option options[] = {
    {"ws", &ws_kib, 4, 3u << 20, 0},
    {"rate", &rate_pages_per_second, 0, 1000000, 0},
    {"pattern", &pattern, 0, 0, pattern_names},
    {"words", &words_max, 1, PAGE_BYTES / 8, 0},
    {"hot", &hot_pages, 1, UINT32_MAX, 0},
    {"fill", &fill, 0, 0, fill_names},
    {"hb", &heartbeat_ms, 1, 60000, 0},
    {"hz", &tick_hz, 19, 1000, 0},
    {"busy", &busy, 0, 1, 0},
    {"seed", &seed, 0, UINT32_MAX, 0},
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static int is_end(char c)
{
    return c == 0 || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* What follows `prefix` in `text`, or 0 when it does not begin with it. */
static const char *after(const char *text, const char *prefix)
{
    while (*prefix != 0)
        if (*text++ != *prefix++)
            return 0;
    return text;
}

static int parse_value(const struct option *option, const char *text)
{
    if (option->names != 0) {
        for (uint32_t i = 0; option->names[i] != 0; i++) {
            const char *rest = after(text, option->names[i]);
            if (rest != 0 && is_end(*rest)) {
                *option->value = i;
                return 1;
            }
        }
        return 0;
    }
    uint64_t number = 0;
    if (is_end(*text))
        return 0;
    for (; !is_end(*text); text++) {
        if (*text < '0' || *text > '9')
            return 0;
        number = number * 10 + (uint32_t)(*text - '0');
        if (number > option->max)
            return 0;
    }
    if (number < option->min)
        return 0;
    *option->value = (uint32_t)number;
    return 1;
}

static _Noreturn void refuse(struct line *line)
{
    print_line(line);
    platform_halt();
}

/*
 * Reads the options from a command line. Words that are none of ours are skipped:
 * QEMU puts the kernel's file name first, and Linux has options of its own there.
 * The READY line repeats all values, so a mistyped key does not stay hidden.
 */
static void workload_configure(const char *command_line)
{
    /* Firmware may have left the cursor in the middle of a line. */
    platform_print("\n", 1);
    for (const char *word = command_line; *word != 0;) {
        for (uint32_t i = 0; i < OPTION_COUNT; i++) {
            const char *value = after(word, options[i].key);
            if (value == 0 || *value != '=' || parse_value(&options[i], value + 1))
                continue;
            struct line line = {.length = 0};
            put_text(&line, "ERROR not a possible value: ");
            while (!is_end(*word))
                put_char(&line, *word++);
            refuse(&line);
        }
        while (!is_end(*word))
            word++;
        while (*word != 0 && is_end(*word))
            word++;
    }
}

/* ---- Writing pages ---------------------------------------------------------- */

/* Written by the main loop alone, read by the heartbeat. */
static volatile uint32_t pages_written;

static void write_zero_page(uint32_t page)
{
    uint32_t *words = words_of_page(page);
    for (uint32_t i = 0; i < PAGE_WORDS; i++)
        words[i] = 0;
    records[page].sum = page_tag(page);
    records[page].weighted_sum = page_tag(page) * PAGE_WORDS;
}

/* The first word tells whether the page is zero: it is never 0 in a random page. */
static void write_alternating_page(uint32_t page)
{
    if (words_of_page(page)[0] != 0) {
        write_zero_page(page);
        return;
    }
    write_random_page(page);
    if (words_of_page(page)[0] == 0)
        change_word(page, 0, 1);
}

static void write_sparse_words(uint32_t page)
{
    records[page].sum += TAG_PER_GENERATION;
    records[page].weighted_sum += TAG_PER_GENERATION * PAGE_WORDS;
    for (uint32_t left = 1 + random_below(&random_source, words_max); left > 0; left--) {
        uint32_t index = 2 * random_below(&random_source, PAGE_WORDS / 2);
        change_word(page, index, random_next(&random_source));
        change_word(page, index + 1, random_next(&random_source));
    }
}

static void write_next_page(void)
{
    uint32_t page = random_below(&random_source, pattern == PATTERN_HOT ? hot_pages : page_count);
    records[page].generation++;
    switch (pattern) {
    case PATTERN_PAGE:
        write_random_page(page);
        break;
    case PATTERN_TEXT:
        write_text_page(page);
        break;
    case PATTERN_ZERO:
        write_alternating_page(page);
        break;
    default:
        write_sparse_words(page);
    }
    pages_written++;
}

/* ---- Verification ---------------------------------------------------------- */

static void verify(void)
{
    uint32_t bad = 0, first = page_count, generations = 0;
    for (uint32_t page = 0; page < page_count; page++) {
        generations += records[page].generation;
        if (page_is_good(page))
            continue;
        if (bad++ == 0)
            first = page;
    }
    /* Records that agree with their pages but not with the number of writes are
       old together with them: reported as one page behind the last. */
    if (generations != pages_written)
        bad++;
    struct line line = {.length = 0};
    put_text(&line, bad == 0 ? "VERIFY ok" : "VERIFY BAD");
    put_field(&line, "pages", page_count);
    if (bad == 0) {
        put_field(&line, "writes", pages_written);
    } else {
        put_field(&line, "bad", bad);
        put_field(&line, "first", first);
    }
    print_line(&line);
}

/* ---- Heartbeat and commands: called at each tick, also in mid-verification ----- */

static volatile int verify_wanted, paused;
static uint32_t heartbeat_ticks;
static uint32_t next_heartbeat_ticks;
static uint32_t heartbeat_counter;

static void workload_tick(uint32_t ticks)
{
    if ((int32_t)(ticks - next_heartbeat_ticks) < 0)
        return;
    next_heartbeat_ticks += heartbeat_ticks;
    /* Beats that were missed are not made up for: a gap must stay visible. */
    if ((int32_t)(ticks - next_heartbeat_ticks) >= 0)
        next_heartbeat_ticks = ticks + heartbeat_ticks;
    struct line line = {.length = 0};
    put_text(&line, "HB ");
    put_number(&line, heartbeat_counter++);
    put_char(&line, ' ');
    put_number(&line, ticks);
    put_char(&line, ' ');
    put_number(&line, pages_written);
    print_line(&line);
}

static void workload_command(char command)
{
    if (command == 'v')
        verify_wanted = 1;
    else if (command == 'p')
        paused = 1;
    else if (command == 'r')
        paused = 0;
}

/* ---- The life of a guest: configure, fill, run -------------------------------- */

static uint32_t pages_wanted(void)
{
    return ws_kib / (PAGE_BYTES / 1024);
}

/*
 * Takes `pages_wanted()` pages at `memory` and as many records, fills the working
 * set and announces it. `physical_address` is only told to the reader of the line
 * (0: not known).
 */
static void workload_fill(void *memory, void *record_memory, uint32_t physical_address)
{
    page_memory = memory;
    records = record_memory;
    page_count = pages_wanted();
    ws_kib = page_count * (PAGE_BYTES / 1024);
    heartbeat_ticks = (heartbeat_ms * tick_hz + 500) / 1000;
    if (heartbeat_ticks == 0)
        heartbeat_ticks = 1;
    if (pattern == PATTERN_HOT && hot_pages > page_count) {
        struct line line = {.length = 0};
        put_text(&line, "ERROR more hot pages than pages:");
        put_field(&line, "hot", hot_pages);
        put_field(&line, "pages", page_count);
        refuse(&line);
    }
    random_start(&random_source, seed);
    for (uint32_t page = 0; page < page_count; page++) {
        records[page].generation = 0;
        if (fill == FILL_RANDOM)
            write_random_page(page);
        else if (fill == FILL_TEXT)
            write_text_page(page);
        else
            write_zero_page(page);
    }
    struct line line = {.length = 0};
    put_text(&line, "READY");
    for (uint32_t i = 0; i < OPTION_COUNT; i++) {
        if (options[i].names == 0) {
            put_field(&line, options[i].key, *options[i].value);
            continue;
        }
        put_char(&line, ' ');
        put_text(&line, options[i].key);
        put_char(&line, '=');
        put_text(&line, options[i].names[*options[i].value]);
    }
    put_field(&line, "base", physical_address);
    print_line(&line);
}

#define BUSY_WRITES_PER_TURN 64u

static _Noreturn void workload_run(void)
{
    /* After a stall the guest writes at most 0.1 s worth of pages at once: without a
       limit a long pause would come back as a burst that no real program makes. */
    uint32_t catch_up_ticks_max = tick_hz / 10 + 1;
    uint32_t seen_ticks = platform_ticks();
    uint32_t owed_remainder = 0; /* in 1/hz pages: the rate is exact over time */
    for (;;) {
        if (verify_wanted) {
            verify_wanted = 0;
            verify();
        }
        uint32_t elapsed_ticks = platform_ticks() - seen_ticks;
        seen_ticks += elapsed_ticks;
        if (elapsed_ticks > catch_up_ticks_max)
            elapsed_ticks = catch_up_ticks_max;
        if (!paused && busy) {
            for (uint32_t i = 0; i < BUSY_WRITES_PER_TURN; i++)
                write_next_page();
            continue;
        }
        if (!paused) {
            uint32_t owed = elapsed_ticks * rate_pages_per_second + owed_remainder;
            owed_remainder = owed % tick_hz;
            for (uint32_t left = owed / tick_hz; left > 0; left--)
                write_next_page();
        }
        platform_wait_tick(seen_ticks);
    }
}

#endif
