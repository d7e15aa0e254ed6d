/*
 * Records that shrink by a dictionary and by little else: each is made of some
 * phrases of many, so that one leaf seldom has the same one twice.
 */
#ifndef PHRASES_H
#define PHRASES_H

#include <stdio.h>

#include "bftree.h"
#include "random.h"

enum {
    PHRASES = 400,
    PHRASE = 32,
    PHRASES_EACH = 9,
    PHRASES_NEW = 20, /* from so many versions to the next, other phrases */
};

struct phrases {
    char key[24];
    char value[PHRASE * PHRASES_EACH];
};

/* Record N as of its version VERSION. */
static inline void phrases_make(struct phrases *p, uint64_t n, uint64_t version)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (void)snprintf(p->key, sizeof(p->key), "%012llu", (unsigned long long)n);
    for (uint64_t i = 0; i < PHRASES_EACH; i++) {
        uint64_t phrase =
            random_mix(n * 64 + version * 4096 * 4096 + i) % PHRASES +
            version / PHRASES_NEW * PHRASES;
        for (uint64_t at = 0; at < PHRASE; at++)
            p->value[i * PHRASE + at] =
                letters[random_mix(phrase * PHRASE + at) % 64];
    }
}
static inline bft_slice phrases_key(const struct phrases *p)
{
    return (bft_slice){p->key, 12};
}
static inline bft_slice phrases_value(const struct phrases *p)
{
    return (bft_slice){p->value, sizeof(p->value)};
}

#endif
