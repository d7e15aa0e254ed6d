/*
 * Behind which index a session has no transactions.  A session grows at its end,
 * so who adds one need not look in the tree whether it is there, if that is known.
 *
 * Of each session that is known of: none of its transactions has an index of END
 * or more.  That stays true whatever fails or is erased, and is raised before a
 * transaction is added.  A few thousand sessions are known of, as many as the
 * bindings' clients know; one takes the place of another.
 *
 * Threads: the caller excludes others.
 */
#ifndef BFTI_COVALUE_ENDS_H
#define BFTI_COVALUE_ENDS_H

#include <stdbool.h>
#include <stdint.h>

enum { BFTI_ENDS = 4096 };

struct bfti_ends {
    uint64_t row[BFTI_ENDS]; /* of the session, 0 none */
    uint64_t end[BFTI_ENDS];
};

/* Is it known that session ROW has no transaction IDX, nor one behind it? */
static inline bool bfti_ends_before(const struct bfti_ends *ends, uint64_t row,
                                    uint64_t idx)
{
    unsigned at = (unsigned)(row % BFTI_ENDS);

    return row != 0 && ends->row[at] == row && ends->end[at] <= idx;
}

/* Session ROW has no transaction of index END or more. */
static inline void bfti_ends_know(struct bfti_ends *ends, uint64_t row,
                                  uint64_t end)
{
    unsigned at = (unsigned)(row % BFTI_ENDS);

    ends->row[at] = row;
    ends->end[at] = end;
}

/* Session ROW gets transaction IDX, which is below UINT64_MAX. */
static inline void bfti_ends_raise(struct bfti_ends *ends, uint64_t row,
                                   uint64_t idx)
{
    unsigned at = (unsigned)(row % BFTI_ENDS);

    if (ends->row[at] == row && ends->end[at] <= idx)
        ends->end[at] = idx + 1;
}

#endif
