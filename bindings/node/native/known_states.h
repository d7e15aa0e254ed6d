/*
 * Known states of CoValues that follow each other, past JSON.parse(): numbers,
 * and one text with all ids.  JavaScript makes of them the objects that it is
 * asked for, with the id it was asked for, in a third of the time.
 */
#ifndef BFTN_KNOWN_STATES_H
#define BFTN_KNOWN_STATES_H

#include "bftree_stores.h"
#include "json_text.h"

struct bftn_known_states {
    unsigned covalues; /* 0: the first is not as usual */
    unsigned names;    /* of sessions */
    size_t names_at;   /* in OUT */
    size_t lengths_at; /* theirs, in NUMBER */
    size_t numbers;
};

/*
 * The CoValues in LIST, a bft_id_list, the first of which has row ROW, with the
 * sessions in VIEW, a bft_covalue_view: as many as NUMBER, which has room for
 * MAX, takes and as are usual.  Usual are ids of ASCII and counts of 31 bits.
 *
 * NUMBER gets of each CoValue the length of its id, how many sessions, and of
 * each session the index of its name and its count; then the length of each
 * name.  OUT gets the ids, then the names.  A name may be there more than once.
 */
struct bftn_known_states bftn_known_states(struct bftn_text *out,
                                           const uint8_t *view, uint64_t row,
                                           const uint8_t *list, int32_t *number,
                                           size_t max);
/* {id, header: true, sessions: {session id: count}} of the CoValue ID in row ROW,
 * whatever there is in its ids. */
void bftn_known_state(struct bftn_text *out, const uint8_t *view, uint64_t row,
                      bft_slice id);

#endif
