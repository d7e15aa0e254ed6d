#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state;
static const uint8_t *given, *given_end; /* instead, unless they are NULL */
enum { LITERAL_MAX = 32 };               /* longer bytes follow from two */

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
    given = given_end = NULL;
}

void random_from(const void *bytes, size_t len)
{
    given = len ? bytes : (const void *)"";
    given_end = given + len;
}

bool random_left(void)
{
    return given < given_end;
}

/* COUNT bytes of those that are given. */
static uint64_t take(unsigned count)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < count && given < given_end; i++)
        number |= (uint64_t)*given++ << (8 * i);
    return number;
}

uint64_t random_next(void)
{
    return given ? take(8) : random_of(&state);
}

size_t random_below(size_t limit)
{
    unsigned count = 0;
    if (!given)
        return (size_t)(random_next() % limit);
    for (size_t most = limit - 1; most; most >>= 8)
        count++;
    return (size_t)(take(count) % limit);
}

void random_bytes(void *buf, size_t len)
{
    uint8_t *at = buf;
    uint64_t own = given && len > LITERAL_MAX ? take(2) : 0;
    for (size_t i = 0; i < len; i++)
        at[i] = !given              ? (uint8_t)random_next()
                : len > LITERAL_MAX ? (uint8_t)random_of(&own)
                                    : (uint8_t)take(1);
}
