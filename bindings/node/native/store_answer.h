/* What the covalue store left in a buffer, as JSON text for JavaScript. */
#ifndef BFTN_STORE_ANSWER_H
#define BFTN_STORE_ANSWER_H

#include "bftree_stores.h"
#include "json_text.h"
#include "usual.h"

/* What becomes of a transaction in its usual shape.  Its two strings lie in the
 * text, behind those of the one before it; numbers, as JavaScript reads them. */
struct bftn_place {
    double changes_len;
    double key_len; /* -1: none, the key is that of the one before it */
    double made_at;
};

/* VIEW is a bft_covalue_view with what follows it; LIST a bft_id_list. */

/*
 * [row id, [session rows], [[flags, signatures, transactions] of each],
 *  [signature rows], [header, transactions of all...]]
 *
 * A session's content counts only with flag BFT_SESSION_CONTENT: then its
 * transactions are those with index 0, 1, 2, ...
 *
 * WITHOUT: the transactions are left out.
 */
void bftn_answer_load(struct bftn_text *out, const uint8_t *view, bool without);
/*
 * The same, without the transactions, if VIEW has the usual shape: one session,
 * whose content counts, without signature rows, all in ASCII.  Then OUT gets the
 * session's id, its last signature and the header, and NUMBER the session's row
 * id, count, bytes since that signature + 1 (0: null), and the lengths of id and
 * signature.  Else false, and nothing is added.
 */
enum { BFTN_USUAL_LOAD_NUMBERS = 5 };
bool bftn_answer_usual_load(struct bftn_text *out, const uint8_t *view,
                            uint64_t number[BFTN_USUAL_LOAD_NUMBERS]);
/*
 * If all transactions of VIEW have the usual shape: add their strings, one
 * behind the other and without quotes, say in PLACE what they are, and return
 * how many.  Else, or if there are more than MAX: 0, and nothing is added.
 */
unsigned bftn_answer_usual(struct bftn_text *out, const uint8_t *view,
                           struct bftn_place *place, unsigned max);
/* [session rows] */
void bftn_answer_sessions(struct bftn_text *out, const uint8_t *view);
/* The one session row; returns its row id. */
uint64_t bftn_answer_session(struct bftn_text *out, const uint8_t *view);
/*
 * *FIRST is the index of the first transaction.  Where all others follow it
 * without a gap nothing is added and the view's own text tells the rest: false.
 * Else [[indexes], [transactions]].
 */
bool bftn_answer_indexes(struct bftn_text *out, const uint8_t *view,
                         uint64_t *first);
/*
 * [[place, key, ...], [transactions]] if some of the transactions have a long
 * string, which is cut out of it: returns how many, at most MAX, and the strings
 * as they lie in VIEW.  Else 0, and nothing is added.
 */
unsigned bftn_answer_strings(struct bftn_text *out, const uint8_t *view,
                             bft_slice *strings, unsigned max);
/* Signature rows, in an array that is open already. */
void bftn_answer_signatures(struct bftn_text *out, const uint8_t *view);
/* The ids, or {id} of each, in an array that is open already; returns the last,
 * as it lies in LIST. */
bft_slice bftn_answer_ids(struct bftn_text *out, const uint8_t *list,
                          bool as_objects);
void bftn_answer_lock(struct bftn_text *out, bft_slice key,
                      const bft_covalue_lock *lock);
void bftn_answer_census(struct bftn_text *out,
                        const bft_covalue_census *census);

#endif
