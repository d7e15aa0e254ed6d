/* What both of this engine's adapters do with every call. */
#ifndef BENCH_BFTREE_CALLS_H
#define BENCH_BFTREE_CALLS_H

#include "index/bftree.h"
#include "rig.h"

static inline void must(bft_status status, const char *what)
{
    char text[512];

    if (status == BFT_OK)
        return;
    bft_last_error(text, sizeof(text));
    rig_die("bftree: %s: %s: %s", what, bft_strerror(status), text);
}

static inline bft_slice slice(const uint8_t *data, size_t len)
{
    return (bft_slice){data, len};
}

#endif
