/* Random numbers that BFT_SEED repeats. */
#ifndef TEST_RANDOM_H
#define TEST_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seed from BFT_SEED, or from the clock; print what repeats it, and return it. */
uint64_t random_start(void);

/* splitmix64: any seed will do. */
static inline uint64_t random_mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* The next number of a sequence of the caller's own. */
static inline uint64_t random_of(uint64_t *state)
{
    return random_mix(*state += 0x9e3779b97f4a7c15u);
}

/* The sequence that all share: go on from SEED. */
void random_seed(uint64_t seed);
uint64_t random_next(void);
/* Below LIMIT, which is not 0. */
size_t random_below(size_t limit);
void random_bytes(void *buf, size_t len);

/* From now on numbers are made of these bytes, which are borrowed, as few of them
 * as the numbers need; behind their end they are 0.  What a fuzzer changes in the
 * bytes changes one decision. */
void random_from(const void *bytes, size_t len);
/* Is there one left? */
bool random_left(void);

#endif
