/*
 * Business documents for a Redis: as many as are asked for, each another, of the same
 * size and with the redundancy of real ones (names repeat, numbers differ), as a file
 * that Redis loads when it starts, which is several times as fast as commands. The same
 * arguments give the same documents.
 *   documents COUNT BYTES SEED > dump.rdb
 * A document begins with its version, which src/lab/client/order-database.ts counts up.
 * Format: https://rdb.fnordig.de/file_format.html (version 9; no checksum).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MIN 64
#define BYTES_MAX 65536
#define COUNT_MAX 100000000

static uint64_t state;

/* xorshift64*: Marsaglia, "Xorshift RNGs" (2003). */
static uint32_t next_random(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32);
}

static const char *const words[] = {
    "valve", "bearing", "flange", "gasket", "spindle", "housing", "impeller", "coupling", "shaft", "seal",
    "bracket", "washer", "sensor", "relay", "fuse", "cable", "motor", "pump", "filter", "hose",
    "open", "shipped", "billed", "blocked", "returned", "partial", "urgent", "standard", "express", "freight",
    "Hamburg", "Lyon", "Porto", "Gdansk", "Turin", "Malmo", "Ghent", "Brno", "Graz", "Cork",
};
#define WORD_COUNT (sizeof words / sizeof words[0])

/* ---- A document ---------------------------------------------------------------- */

/* What does not fit any more is cut off. */
struct text {
    char *bytes;
    size_t used, size;
};

static void append(struct text *text, const char *piece)
{
    size_t length = strlen(piece), space = text->size - text->used;
    if (length > space)
        length = space;
    memcpy(text->bytes + text->used, piece, length);
    text->used += length;
}

/* Not by printf, which an emulated machine would spend most of its time in. */
static void append_number(struct text *text, uint32_t number)
{
    char digits[11];
    char *begin = digits + sizeof digits - 1;
    *begin = '\0';
    do
        *--begin = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    append(text, begin);
}

static void append_word(struct text *text)
{
    append(text, words[next_random() % WORD_COUNT]);
}

static void document(char *bytes, size_t size, uint32_t number)
{
    struct text text = {bytes, 0, size};
    append(&text, "000000000000{\"order\":");
    append_number(&text, number);
    append(&text, ",\"customer\":");
    append_number(&text, next_random() % 1000000);
    append(&text, ",\"lines\":[");
    while (text.used < size) {
        append(&text, "{\"item\":\"");
        append_word(&text);
        append(&text, "-");
        append_word(&text);
        append(&text, "\",\"sku\":\"");
        append_number(&text, next_random());
        append(&text, "\",\"quantity\":");
        append_number(&text, next_random() % 500);
        append(&text, ",\"price\":\"");
        append_number(&text, next_random() % 10000);
        append(&text, ".99\",\"to\":\"");
        append_word(&text);
        append(&text, "\"},");
    }
}

/* ---- The file ------------------------------------------------------------------ */

#define STRING_VALUE 0x00
#define RESIZE_TABLES 0xfb
#define SELECT_DATABASE 0xfe
#define END_OF_FILE 0xff

static void put_length(uint32_t length)
{
    if (length < 64) {
        putchar((int)length);
    } else {
        putchar(0x80);
        for (int shift = 24; shift >= 0; shift -= 8)
            putchar((int)(length >> shift & 0xff));
    }
}

static void put_string(const char *bytes, size_t length)
{
    put_length((uint32_t)length);
    fwrite(bytes, 1, length, stdout);
}

static long argument(const char *text, long min, long max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < min || value > max) {
        fprintf(stderr, "documents: %s is not a number from %ld to %ld\n", text, min, max);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    static char text[BYTES_MAX];
    if (argc != 4) {
        fprintf(stderr, "usage: documents COUNT BYTES SEED\n");
        return 2;
    }
    long count = argument(argv[1], 1, COUNT_MAX);
    long size = argument(argv[2], BYTES_MIN, BYTES_MAX);
    state = (uint64_t)argument(argv[3], 1, INT32_MAX);

    fputs("REDIS0009", stdout);
    putchar(SELECT_DATABASE);
    put_length(0);
    putchar(RESIZE_TABLES);
    put_length((uint32_t)count);
    put_length(0);
    for (long number = 0; number < count; number++) {
        char bytes[32];
        struct text key = {bytes, 0, sizeof bytes};
        append(&key, "document:");
        append_number(&key, (uint32_t)number);
        document(text, (size_t)size, (uint32_t)number);
        putchar(STRING_VALUE);
        put_string(key.bytes, key.used);
        put_string(text, (size_t)size);
    }
    putchar(END_OF_FILE);
    for (int byte = 0; byte < 8; byte++)
        putchar(0);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("documents: stdout");
        return 1;
    }
    return 0;
}
