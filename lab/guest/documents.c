/*
 * Business documents for a Redis: as many as are asked for, each another, of the same
 * size and with the redundancy of real ones (names repeat, numbers differ), as commands
 * for `redis-cli --pipe`. The same arguments give the same documents.
 *   documents COUNT BYTES SEED
 * A document begins with its version, which src/lab/client/order-database.ts counts up.
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

static const char *word(void)
{
    return words[next_random() % WORD_COUNT];
}

static void document(char *text, size_t bytes, uint32_t number)
{
    char line[512];
    size_t used = 0;
    int length = snprintf(line, sizeof line, "%012d{\"order\":%u,\"customer\":%u,\"lines\":[", 0, number,
                          next_random() % 1000000);
    for (;;) {
        size_t piece = (size_t)length < bytes - used ? (size_t)length : bytes - used;
        memcpy(text + used, line, piece);
        used += piece;
        if (used == bytes)
            return;
        uint32_t price = next_random();
        length = snprintf(line, sizeof line,
                          "{\"item\":\"%s-%s\",\"sku\":\"%08x\",\"quantity\":%u,\"price\":\"%u.%02u\",\"to\":\"%s\"},",
                          word(), word(), next_random(), next_random() % 500, price % 10000, price % 97, word());
    }
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
    long bytes = argument(argv[2], BYTES_MIN, BYTES_MAX);
    state = (uint64_t)argument(argv[3], 1, INT32_MAX);

    for (long number = 0; number < count; number++) {
        char key[32];
        int key_bytes = snprintf(key, sizeof key, "document:%ld", number);
        document(text, (size_t)bytes, (uint32_t)number);
        printf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%ld\r\n", key_bytes, key, bytes);
        fwrite(text, 1, (size_t)bytes, stdout);
        fputs("\r\n", stdout);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("documents: stdout");
        return 1;
    }
    return 0;
}
