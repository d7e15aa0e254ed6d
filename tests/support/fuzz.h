/*
 * What fuzzers share: how many rounds there are, each with random numbers of
 * its own, and damage to bytes.
 *
 *   BFT_SEED=n         the same rounds again
 *   BFT_FUZZ_ROUNDS=n  n times as many as usual
 *   BFT_FUZZ_ONLY=n    only round n of each test
 *   BFT_FUZZ_SAY=1     say what each round does before it does it
 */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The seed, printed; before the tests. */
void fuzz_start(void);

/* Go on to the next round of *ROUND (0 at first), whose random numbers depend
 * on the seed, SALT and its number only; false after USUAL of them.  SALT keeps
 * the rounds of two tests apart. */
bool fuzz_next(unsigned *round, unsigned usual, uint64_t salt);
/* Is a count of what was reached to be judged?  Not when one round is run. */
bool fuzz_counts(void);
/* Note what this round is about: it is told when the round fails. */
void fuzz_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Fail, telling seed, round and what it was about. */
#define fuzz_fail(...) fuzz_fail_at(__FILE__, __LINE__, __VA_ARGS__)
void fuzz_fail_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* An expression, which linters count as less than a statement. */
#define fuzz_assert(condition) \
    ((condition) ? (void)0 : fuzz_fail("not so: %s", #condition))

/* Bytes to be damaged; BYTE has room for CAP. */
struct fuzz_bytes {
    uint8_t *byte;
    size_t len, cap;
};

/* Damage them once, somewhere at or above FROM, with pieces that are multiples
 * of GRAIN: a bit flipped, bytes written over, a piece zeroed, two swapped, one
 * copied over another, the end cut off or more of it added.  Nothing may have
 * changed: a piece of zeros was zeroed.  Says what it did. */
void fuzz_harm(struct fuzz_bytes *bytes, size_t from, size_t grain);
/* A copy of *LEN bytes of BYTE, damaged a few times, in a block of its own length,
 * to be freed. */
uint8_t *fuzz_damaged_copy(const void *byte, size_t *len);

#endif
