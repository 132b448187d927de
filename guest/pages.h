/*
 * A working set of pages that can prove what they hold: random numbers and text to
 * fill and change them with, and a checked record of every page. Shared by the
 * workload of the test guests (workload.h) and the lab's writer
 * (lab/guest/writer.c). Knows nothing of pace, devices or where memory comes from.
 */
#ifndef PAGES_H
#define PAGES_H

#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / 4)

/* ---- Random numbers and text ----------------------------------------------- */

/* MWC64X (D. B. Thomas, 2011): one multiplication per 32 random bits, also on a
   32-bit machine, and not compressible, which "random" pages must not be. */
struct random {
    uint32_t state, carry;
};
static struct random random_source;

static uint32_t random_next(struct random *random)
{
    uint32_t result = random->state ^ random->carry;
    uint64_t product = (uint64_t)random->state * 4294883355u + random->carry;
    random->state = (uint32_t)product;
    random->carry = (uint32_t)(product >> 32);
    return result;
}

static uint32_t random_below(struct random *random, uint32_t limit)
{
    return (uint32_t)(((uint64_t)random_next(random) * limit) >> 32);
}

static void random_start(struct random *random, uint32_t seed)
{
    random->state = seed;
    random->carry = 12345; /* any value but 0, which would make seed=0 a fixed point */
    for (int i = 0; i < 16; i++)
        random_next(random); /* so that near seeds do not begin alike */
}

/* English words, each with its space 4, 8 or 12 bytes long, so that text can be
   written and summed in 32-bit words. */
static const char words_of_4[] __attribute__((aligned(4))) =
    "the and are but can did few get had has her him his how its let "
    "man new not now old one our out own put saw see she too two way ";
static const char words_of_8[] __attribute__((aligned(4))) =
    "machine virtual network process storage balance channel traffic "
    "history picture subject quality science country village morning "
    "evening weather husband brother student teacher captain officer "
    "company manager service product account payment control measure "
    "problem purpose thought nothing another because between through "
    "against without perhaps already general special private present "
    "certain several usually quickly finally exactly brought decided "
    "started stopped carried reached changed forward outside nowhere ";
static const char words_of_12[] __attribute__((aligned(4))) =
    "information development performance application environment temperature "
    "independent opportunity arrangement association combination comfortable "
    "competition composition consequence demonstrate destination description "
    "electricity examination explanation fundamental imagination immediately "
    "instruction interesting institution maintenance mathematics observation "
    "partnership possibility ";
_Static_assert(sizeof words_of_4 == 32 * 4 + 1, "32 words of 4 bytes");
_Static_assert(sizeof words_of_8 == 64 * 8 + 1, "64 words of 8 bytes");
_Static_assert(sizeof words_of_12 == 32 * 12 + 1, "32 words of 12 bytes");

typedef uint32_t __attribute__((may_alias)) text_word;

/* ---- Pages and their checksums --------------------------------------------- */

/*
 * What is known of a page, kept outside of the working set: the two sums of
 * Fletcher's checksum over the page's 32-bit words,
 *     sum = tag + x[0] + ... + x[1023]
 *     weighted_sum = 1024 * tag + 1024 * x[0] + 1023 * x[1] + ... + 1 * x[1023]
 * modulo 2^32. Both follow the change of one word in constant time, and two adds
 * per word compute them while a whole page is written. `sum` notices every
 * change of a single word, `weighted_sum` also values that change places. The tag
 * is made of the page's number and its generation (writes so far), so that a
 * record is worthless to any other page and to any other age of its own page.
 * The generations of all pages add up to `pages_written`, which notices that a
 * record and its page are both old.
 */
struct page_record {
    uint32_t sum, weighted_sum;
    uint32_t generation;
};

#define TAG_PER_PAGE 0x9e3779b1u
#define TAG_PER_GENERATION 0x85ebca77u

static uint32_t *page_memory;
static struct page_record *records;
static uint32_t page_count;

static uint32_t *words_of_page(uint32_t page)
{
    return page_memory + (uintptr_t)page * PAGE_WORDS;
}

static uint32_t page_tag(uint32_t page)
{
    return page * TAG_PER_PAGE + records[page].generation * TAG_PER_GENERATION;
}

static void change_word(uint32_t page, uint32_t index, uint32_t value)
{
    uint32_t *word = words_of_page(page) + index;
    uint32_t difference = value - *word;
    records[page].sum += difference;
    records[page].weighted_sum += (PAGE_WORDS - index) * difference;
    *word = value;
}

/* The writers below keep sums and random state in locals: through pointers they
   would go through memory for each word, and the fill would take twice as long. */

static void write_random_page(uint32_t page)
{
    struct random random = random_source;
    uint32_t *words = words_of_page(page);
    uint32_t sum = page_tag(page), weighted_sum = 0;
    for (uint32_t i = 0; i < PAGE_WORDS; i++) {
        uint32_t value = random_next(&random);
        words[i] = value;
        sum += value;
        weighted_sum += sum;
    }
    records[page].sum = sum;
    records[page].weighted_sum = weighted_sum;
    random_source = random;
}

static void write_text_page(uint32_t page)
{
    struct random random = random_source;
    uint32_t *words = words_of_page(page);
    uint32_t sum = page_tag(page), weighted_sum = 0;
    for (uint32_t i = 0; i < PAGE_WORDS;) {
        uint32_t choice = random_below(&random, 32 + 64 + 32);
        const char *text;
        uint32_t left;
        if (choice < 32)
            text = words_of_4 + choice * 4, left = 1;
        else if (choice < 96)
            text = words_of_8 + (choice - 32) * 8, left = 2;
        else
            text = words_of_12 + (choice - 96) * 12, left = 3;
        for (; left > 0 && i < PAGE_WORDS; left--, text += 4) {
            uint32_t value = *(const text_word *)text;
            words[i++] = value;
            sum += value;
            weighted_sum += sum;
        }
    }
    records[page].sum = sum;
    records[page].weighted_sum = weighted_sum;
    random_source = random;
}

static int page_is_good(uint32_t page)
{
    const uint32_t *words = words_of_page(page);
    uint32_t sum = page_tag(page), weighted_sum = 0;
    for (uint32_t i = 0; i < PAGE_WORDS; i++) {
        sum += words[i];
        weighted_sum += sum;
    }
    return sum == records[page].sum && weighted_sum == records[page].weighted_sum;
}

#endif
