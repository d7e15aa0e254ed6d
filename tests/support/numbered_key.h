/* Keys that lie in the order of their numbers. */
#ifndef TEST_NUMBERED_KEY_H
#define TEST_NUMBERED_KEY_H

#include <inttypes.h>
#include <stdio.h>

#include "bft_status.h"

/* Where a key's bytes are. */
struct text {
    char chars[32];
};

static inline bft_slice key_of(struct text *text, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key%06" PRIu64, n);
    return (bft_slice){text->chars, (size_t)len};
}

#endif
