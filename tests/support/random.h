/* Random numbers that BFT_SEED repeats. */
#ifndef TEST_RANDOM_H
#define TEST_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Seed from BFT_SEED, or from the clock; print what repeats it, and return it. */
uint64_t random_start(void);
/* Go on from SEED. */
void random_seed(uint64_t seed);
uint64_t random_next(void);
/* Below LIMIT, which is not 0. */
size_t random_below(size_t limit);
void random_bytes(void *buf, size_t len);

#endif
