/*
 * Filling a caller's buffer from both ends: bytes from the front, rows of tables
 * from the back, so that neither needs to know how much there will be of the
 * other.  What does not fit is counted on, and says how much would do.
 */
#ifndef BFTI_COVALUE_PACK_H
#define BFTI_COVALUE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bft_status.h"

struct bfti_pack {
    uint8_t *buf;
    size_t len;
    size_t front; /* bytes taken at the front */
    size_t back;  /* bytes taken at the back */
    size_t kept;  /* bytes in between that are spoken for; the caller's */
    bool over;    /* more was asked for than there is */
};

/* Start in BUF, whose first HEAD bytes are set to zero and left to the caller. */
bft_status bfti_pack_init(struct bfti_pack *pack, void *buf, size_t len,
                          size_t head);
/* Append LEN bytes at the front; return where they are. */
uint32_t bfti_pack_bytes(struct bfti_pack *pack, const void *data, size_t len);
/* Make room for LEN bytes at the front; NULL when there is none. */
uint8_t *bfti_pack_room(struct bfti_pack *pack, size_t len);
/* Where the next byte at the front goes, and how many may be written there
 * before room is made for them.  Never NULL. */
uint8_t *bfti_pack_spot(const struct bfti_pack *pack, size_t *room);
/* Room for one row of LEN bytes at the back, under the row before it; NULL when
 * there is none. */
void *bfti_pack_row(struct bfti_pack *pack, size_t len);
/* The row I of a table whose first row was made when `back` was BACK. */
void *bfti_pack_row_at(const struct bfti_pack *pack, size_t back, size_t len,
                       size_t i);

/* One table of rows, in the order of their making. */
struct bfti_pack_table {
    size_t row_len;
    size_t count;
    uint32_t *place;
};

/*
 * Bring the tables, which are all that is at the back, to the front, each with
 * its rows in the order they were made, and note their places; *USED is what
 * the whole takes.  BFT_TOO_SMALL when not everything fitted.
 */
bft_status bfti_pack_finish(struct bfti_pack *pack,
                            const struct bfti_pack_table *tables, size_t count,
                            size_t *used);

#endif
