/*
 * The lab's writer without its port and its pace, for src/lab/guest/writer.test.ts: writes
 * each page of a small working set some times and counts what is not as it should be.
 *   writer-check BYTES_PER_PAGE random|text run|scattered
 */
#define main writer_main
#include "../../lab/guest/writer.c"
#undef main

#define PAGES 96u
#define ROUNDS 4u

/* Which of `page` are other than in `before`, as flags; returns how many. */
static uint32_t changed_bytes(uint32_t page, const uint8_t *before, uint8_t *is_changed)
{
    const uint8_t *now = (const uint8_t *)words_of_page(page);
    uint32_t count = 0;
    for (uint32_t i = 0; i < PAGE_BYTES; i++)
        count += is_changed[i] = now[i] != before[i];
    return count;
}

static int lies_as_told(const uint8_t *is_changed)
{
    if (is_scattered) {
        for (uint32_t part = 0; part < bytes_per_page; part++) {
            uint32_t count = 0;
            for (uint32_t i = part * PAGE_BYTES / bytes_per_page; i < (part + 1) * PAGE_BYTES / bytes_per_page; i++)
                count += is_changed[i];
            if (count != 1)
                return 0;
        }
        return 1;
    }
    uint32_t begins = is_changed[0];
    for (uint32_t i = 1; i < PAGE_BYTES; i++)
        begins += is_changed[i] && !is_changed[i - 1];
    return begins == 1;
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    page_count = PAGES;
    bytes_per_page = number_of(arguments[1], 1, PAGE_BYTES, "bytes per page");
    is_text = word_of(arguments[2], "random", "text");
    is_scattered = word_of(arguments[3], "run", "scattered");
    random_start(&random_source, 1);
    walk_start();
    take_memory();

    static uint8_t before[PAGES * PAGE_BYTES], is_changed[PAGE_BYTES];
    uint32_t other_count = 0, other_place = 0, other_page = 0, repeated = 0, damaged = 0, missed = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint8_t was_written[PAGES] = {0};
        for (uint32_t write = 0; write < PAGES; write++) {
            memcpy(before, page_memory, sizeof before);
            uint32_t page = next_page;
            write_next_page();
            repeated += was_written[page]++;
            other_count += changed_bytes(page, before + page * PAGE_BYTES, is_changed) != bytes_per_page;
            other_place += !lies_as_told(is_changed);
            damaged += !page_is_good(page);
            memcpy(before + page * PAGE_BYTES, words_of_page(page), PAGE_BYTES);
            other_page += memcmp(before, page_memory, sizeof before) != 0;
        }
    }
    for (uint32_t page = 0; page < PAGES; page++) {
        uint8_t *byte = (uint8_t *)words_of_page(page) + random_below(&random_source, PAGE_BYTES);
        uint8_t bit = (uint8_t)(1u << random_below(&random_source, 8));
        *byte ^= bit;
        missed += (uint32_t)page_is_good(page);
        *byte ^= bit;
        /* As it was before its last write, while its record is new. */
        records[page].generation--;
        missed += (uint32_t)page_is_good(page);
        records[page].generation++;
        damaged += !page_is_good(page);
    }
    printf("pagesWritten=%u otherCount=%u otherPlace=%u otherPage=%u repeated=%u damaged=%u missed=%u\n",
           pages_written, other_count, other_place, other_page, repeated, damaged, missed);
    return 0;
}
