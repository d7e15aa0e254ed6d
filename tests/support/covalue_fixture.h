/*
 * A covalue store to test, and short forms of its calls.  What a test does not
 * expect to fail is asserted here.
 */
#ifndef COVALUE_FIXTURE_H
#define COVALUE_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree_stores.h"
#include "index/engine.h"

enum { COVALUE_BUF = 1 << 20 };

struct covalue_fixture {
    char path[256];
    struct bfti_vfs *memory; /* what it lies in, NULL: the system's files */
    struct bfti_surroundings surroundings;
    bft_options options;
    bft_db *db;
    bft_covalue_store *store;
    uint64_t buf[COVALUE_BUF / 8]; /* of the last read */
    size_t used;
};

/* A new store in a directory of its own, or in memory where there are no files
 * of the system's, with a memory budget of BUDGET bytes
 * (0: the default). */
struct covalue_fixture *covalue_fixture_open(uint64_t budget);
/* A small one in memory, without threads. */
struct covalue_fixture *covalue_fixture_open_memory(void);
/* Close and open it again. */
void covalue_fixture_reopen(struct covalue_fixture *f);
/* Check it, close it and remove the directory ... */
void covalue_fixture_close(struct covalue_fixture *f);
/* ... or leave out the check. */
void covalue_fixture_drop(struct covalue_fixture *f);

bft_slice cv_text(const char *chars);
bool cv_is_text(const void *data, size_t len, const char *chars);
/* Does bft_last_error() hold CHARS? */
bool cv_last_error_has(const char *chars);

/* --- ops ---------------------------------------------------------------------------- */

bft_covalue_op cv_op_covalue(const char *id, const char *header);
bft_covalue_op cv_op_find(const char *id);
bft_covalue_op cv_op_session(uint64_t covalue, const char *id,
                             uint64_t last_idx, const char *signature,
                             uint64_t bytes);
bft_covalue_op cv_op_transaction(uint64_t session, uint64_t idx,
                                 const char *value);
bft_covalue_op cv_op_signature(uint64_t session, uint64_t idx,
                               const char *signature);
bft_covalue_op cv_op_deleted(const char *id);
bft_covalue_op cv_op_peer(const char *id, const char *peer, bool synced);
bft_covalue_op cv_op_untrack(const char *id);
bft_covalue_op cv_op_with(bft_covalue_op op, uint32_t flags);

/* Apply OPS and return the status. */
bft_status cv_apply(struct covalue_fixture *f, bft_covalue_op *ops,
                    size_t count);
/* Apply one op, which succeeds; its result. */
uint64_t cv_apply_one(struct covalue_fixture *f, bft_covalue_op op);
/* COUNT transactions "{\"n\":i}" from index FROM on of SESSION. */
void cv_add_transactions(struct covalue_fixture *f, uint64_t session,
                         uint64_t from, uint64_t count);
/* A CoValue ID with one session SES of COUNT transactions; the session's row. */
uint64_t cv_make_covalue(struct covalue_fixture *f, const char *id,
                         const char *ses, uint64_t count);

/* --- reads ----------------------------------------------------------------------------- */

/* Into f->buf; what they return points there. */
bft_status cv_load(struct covalue_fixture *f, const char *id,
                   bft_covalue_what what);
const bft_covalue_view *cv_view_of(const struct covalue_fixture *f);
const bft_session_row *cv_session_row(const struct covalue_fixture *f,
                                      size_t i);
const bft_signature_row *cv_signature_row(const struct covalue_fixture *f,
                                          size_t i);
const bft_transaction_row *cv_transaction_row(const struct covalue_fixture *f,
                                              size_t i);
const bft_id_list *cv_list_of(const struct covalue_fixture *f);
bool cv_place_is(const struct covalue_fixture *f, uint32_t place, uint32_t len,
                 const char *chars);
bool cv_list_is(const struct covalue_fixture *f, size_t i, const char *id);
/* Rows of SESSION from FROM to TO. */
size_t cv_transactions(struct covalue_fixture *f, uint64_t session,
                       uint64_t from, uint64_t to);
size_t cv_signatures(struct covalue_fixture *f, uint64_t session,
                     uint64_t from);
size_t cv_deletions(struct covalue_fixture *f);
size_t cv_unsynced(struct covalue_fixture *f);
bft_covalue_census cv_census(struct covalue_fixture *f);

#endif
