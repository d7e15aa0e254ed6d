/*
 * The log of a block device: what log_disk was asked to do, in the order that
 * it came, and where between that somebody left a mark.  Records follow one
 * another, each a header and, of a write or a mark, its bytes; of the machine's
 * own byte order, as it is read where it was written.
 */
#ifndef POWER_LOG_H
#define POWER_LOG_H

#include <stdint.h>

enum power_type {
    POWER_WRITE = 1,
    POWER_ZERO, /* zeros without their bytes; also a discard */
    POWER_FLUSH,
    POWER_MARK,
};

struct power_record {
    uint32_t type; /* enum power_type */
    uint32_t zero;
    uint64_t offset; /* on the device */
    uint64_t len;
};
_Static_assert(sizeof(struct power_record) == 24, "no padding");

/*
 * A mark is a letter, a blank and a number, of the commits of a life of
 * power_life.h:
 *
 *   m 0   the file system is mounted: from here on it is to survive
 *   b N   commit N begins
 *   s N   commits up to N were acknowledged to survive a power cut
 */
enum { POWER_MARK_MAX = 24 };

#endif
