#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state;

uint64_t random_start(void)
{
    const char *text = getenv("BFT_SEED");
    struct timespec now;

    if (text) {
        state = strtoull(text, NULL, 0);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        state = (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
    }
    printf("BFT_SEED=%llu\n", (unsigned long long)state);
    fflush(stdout);
    return state;
}

void random_seed(uint64_t seed)
{
    state = seed;
}

uint64_t random_next(void)
{
    return random_of(&state);
}

size_t random_below(size_t limit)
{
    return (size_t)(random_next() % limit);
}

void random_bytes(void *buf, size_t len)
{
    uint8_t *at = buf;
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)random_next();
}
