/* See store_call.h.  What lists and tables become is in store_answer.c. */
#include "store_call.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OUT_KEEP = 1 << 20,
    /* Room for the rows of most CoValues with their first segment.  One that is
     * longer, as of a file, is better off as a range: its strings are long. */
    SCRATCH_LOAD = 64 << 10,
    /* Room for a few segments: a long range comes in pieces of it. */
    SCRATCH_RANGE = 1 << 20,
    SCRATCH_KEEP = 4 << 20,
    SCRATCH_LIST = 64 << 10,
    /* Room for some known states' ids. */
    IDS_ROOM = 16 << 10,
    /* Room for the JSON of all counters, and of as many again. */
    STATS_TEXT = 8 << 10,
};

_Static_assert(IDS_ROOM > BFT_COVALUE_ID_MAX + 64, "one id fits");

const struct bftn_call_shape bftn_call_shapes[BFTN_CALLS] = {
#define CALL_SHAPE(name, what, writes, numbers, texts) \
    [BFTN_##name] = {what, writes, numbers, texts},
    BFTN_CALL_MAP(CALL_SHAPE)
#undef CALL_SHAPE
};

/* --- outcomes ------------------------------------------------------------------ */

void bftn_call_refuse(struct bftn_call *call, bft_status status,
                      const char *text)
{
    const char *path = call->store == NULL ? NULL : call->store->path;

    call->status = status;
    call->answered = false;
    call->results = 0;
    (void)snprintf(call->message, sizeof(call->message), "%s%s%s: %s",
                   bftn_call_shapes[call->kind].what,
                   path == NULL ? "" : " in ", path == NULL ? "" : path, text);
}

/* The same with what the library said last. */
static void call_failed(struct bftn_call *call, bft_status status)
{
    char text[BFTN_MESSAGE_MAX];

    text[0] = '\0';
    (void)bft_last_error(text, sizeof(text));
    bftn_call_refuse(call, status,
                     text[0] == '\0' ? bft_strerror(status) : text);
}

static bft_status out_of_memory(struct bftn_call *call, size_t bytes)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "no memory for %zu bytes", bytes);
    bftn_call_refuse(call, BFT_NO_MEMORY, text);
    return BFT_NO_MEMORY;
}

static void give(struct bftn_call *call, uint64_t number)
{
    if (call->results < BFTN_RESULTS)
        call->result[call->results++] = number;
}

/* What was built is the answer. */
static void answer_out(struct bftn_call *call)
{
    if (call->out.failed) {
        (void)out_of_memory(call, call->out.len);
        return;
    }
    call->answered = true;
    call->answer = (bft_slice){call->out.bytes, call->out.len};
}

/* --- reading into scratch ------------------------------------------------------- */

static bft_status scratch_ask(struct bftn_call *call, size_t len)
{
    uint8_t *scratch;

    if (len <= call->scratch_len)
        return BFT_OK;
    scratch = malloc(len);
    if (scratch == NULL)
        return out_of_memory(call, len);
    free(call->scratch);
    call->scratch = scratch;
    call->scratch_len = len;
    return BFT_OK;
}

typedef bft_status read_function(const struct bftn_call *call, size_t *used);

/*
 * Have READ fill the scratch, of LEN bytes or as many as it asks for.  False:
 * the call has failed, or there is no such row, which is no failure here.
 */
static bool read_rows(struct bftn_call *call, read_function *read, size_t len)
{
    size_t used;
    bft_status status = scratch_ask(call, len);

    if (status != BFT_OK)
        return false;
    status = read(call, &used);
    /* Ends: others may make the row longer meanwhile, but not for ever. */
    while (status == BFT_TOO_SMALL && used > call->scratch_len) {
        if (scratch_ask(call, used) != BFT_OK)
            return false;
        status = read(call, &used);
    }
    if (status == BFT_OK)
        return true;
    if (status != BFT_NOT_FOUND)
        call_failed(call, status);
    return false;
}

static bft_status read_load(const struct bftn_call *call, size_t *used)
{
    return bft_covalue_load(call->store->covalues, call->text[0],
                            (bft_covalue_what)call->number[0], call->scratch,
                            call->scratch_len, used);
}

/* Of the rows from result 0 on. */
static bft_status read_known(const struct bftn_call *call, size_t *used)
{
    uint64_t row = call->result[0];

    return bft_covalue_known(call->store->covalues, row,
                             row + call->number[0] - 1, call->scratch,
                             call->scratch_len, used);
}

static bft_status read_sessions(const struct bftn_call *call, size_t *used)
{
    return bft_covalue_sessions(call->store->covalues, call->number[0],
                                BFT_LOAD_ROWS, call->scratch, call->scratch_len,
                                used);
}

static bft_status read_session(const struct bftn_call *call, size_t *used)
{
    return bft_covalue_session(call->store->covalues, call->number[0],
                               call->text[0], call->scratch, call->scratch_len,
                               used);
}

static bft_status read_transactions(const struct bftn_call *call, size_t *used)
{
    return bft_covalue_transactions(call->store->covalues, call->number[0],
                                    call->number[1], call->number[2],
                                    call->scratch, call->scratch_len, used);
}

static bft_status read_signatures(const struct bftn_call *call, size_t *used)
{
    return bft_covalue_signatures(call->store->covalues, call->number[0],
                                  call->number[1], call->scratch,
                                  call->scratch_len, used);
}

/* --- reads -------------------------------------------------------------------------- */

static void run_row(struct bftn_call *call)
{
    uint64_t row;
    bft_status status =
        bft_covalue_row(call->store->covalues, call->text[0], &row);

    if (status != BFT_OK && status != BFT_NOT_FOUND)
        call_failed(call, status);
    else
        give(call, row);
}

/* Have the transactions lie in places, if all are usual; returns how many. */
static unsigned usual_cut(struct bftn_call *call)
{
    unsigned count = bftn_answer_usual(&call->out, call->scratch, call->place,
                                       BFTN_PLACES_MAX);

    call->place_bytes = count * sizeof(*call->place);
    return count;
}

static void run_load(struct bftn_call *call)
{
    uint64_t number[BFTN_USUAL_LOAD_NUMBERS];
    const bft_covalue_view *view;
    unsigned usual;

    if (!read_rows(call, read_load, SCRATCH_LOAD)) {
        give(call, 0);
        return;
    }
    view = (const void *)call->scratch;
    give(call, view->row);
    give(call, view->changes);
    usual = usual_cut(call);
    give(call, usual);
    give(call, call->out.len);
    if (usual != 0 &&
        bftn_answer_usual_load(&call->out, call->scratch, number)) {
        for (unsigned i = 0; i < BFTN_USUAL_LOAD_NUMBERS; i++)
            give(call, number[i]);
    } else {
        give(call, 0);
        bftn_answer_load(&call->out, call->scratch, usual != 0);
    }
    answer_out(call);
}

/* In numbers and names if the first is usual, else in JSON, that one alone. */
static void answer_known(struct bftn_call *call, const uint8_t *ids)
{
    struct bftn_known_states states =
        bftn_known_states(&call->out, call->scratch, call->result[0], ids,
                          call->number_out, BFTN_NUMBERS_MAX);

    if (states.covalues == 0)
        bftn_known_state(&call->out, call->scratch, call->result[0],
                         call->text[0]);
    call->place_bytes = states.numbers * sizeof(*call->number_out);
    give(call, states.covalues);
    give(call, states.names);
    give(call, states.names_at);
    give(call, states.lengths_at);
    answer_out(call);
}

/* Known states end where sessions, or ids, did not fit: what comes then is asked
 * for another time. */
static void run_known(struct bftn_call *call)
{
    _Alignas(8) uint8_t ids[IDS_ROOM];
    const bft_covalue_view *view;
    bft_status status;
    uint64_t row;
    size_t used;

    run_row(call);
    row = call->result[0];
    if (call->status != BFT_OK || row == 0 ||
        !read_rows(call, read_known, SCRATCH_LOAD))
        return;
    view = (const void *)call->scratch;
    status = bft_covalue_ids(call->store->covalues, row - 1, call->number[0],
                             ids, sizeof(ids), &used);
    if (status != BFT_OK) {
        call_failed(call, status);
        return;
    }
    give(call, view->changes);
    answer_known(call, ids);
}

static void run_sessions(struct bftn_call *call)
{
    if (!read_rows(call, read_sessions, SCRATCH_LIST))
        return;
    bftn_answer_sessions(&call->out, call->scratch);
    answer_out(call);
}

static void run_session(struct bftn_call *call)
{
    if (!read_rows(call, read_session, SCRATCH_LIST)) {
        give(call, 0);
        return;
    }
    give(call, bftn_answer_session(&call->out, call->scratch));
    answer_out(call);
}

/* Of the answer to TRANSACTIONS: store_call.h. */
enum form { FORM_PLAIN, FORM_INDEXES, FORM_STRINGS, FORM_USUAL };

static enum form form_transactions(struct bftn_call *call, uint64_t *first)
{
    if (bftn_answer_indexes(&call->out, call->scratch, first))
        return FORM_INDEXES;
    if (usual_cut(call) != 0)
        return FORM_USUAL;
    call->strings = bftn_answer_strings(&call->out, call->scratch, call->string,
                                        BFTN_STRINGS_MAX);
    return call->strings != 0 ? FORM_STRINGS : FORM_PLAIN;
}

static void run_transactions(struct bftn_call *call)
{
    const bft_covalue_view *view;
    enum form form;
    uint64_t first;

    if (!read_rows(call, read_transactions, SCRATCH_RANGE))
        return;
    view = (const void *)call->scratch;
    form = form_transactions(call, &first);
    give(call, view->next);
    give(call, first);
    give(call, form);
    give(call, view->transaction_count);
    if (form != FORM_PLAIN) {
        answer_out(call);
        return;
    }
    /* As it lies there: no copy of what may be long. */
    call->answered = true;
    call->answer = (bft_slice){call->scratch + view->text, view->text_len};
}

/* A session has few: they come in one text. */
static void run_signatures(struct bftn_call *call)
{
    const bft_covalue_view *view;

    bftn_text_put(&call->out, "[");
    do {
        if (!read_rows(call, read_signatures, SCRATCH_LIST))
            return;
        view = (const void *)call->scratch;
        bftn_answer_signatures(&call->out, call->scratch);
        call->number[1] = view->next;
    } while (view->next != 0 && !call->out.failed);
    bftn_text_put(&call->out, "]");
    answer_out(call);
}

/* --- lists of ids --------------------------------------------------------------------- */

/* One page of a list: of the CoValues with rows above AFTER at most LIMIT, of
 * the others what comes after LAST. */
static bft_status list_page(struct bftn_call *call, uint64_t after,
                            uint64_t limit, bft_slice last, size_t *used)
{
    bft_covalue_store *covalues = call->store->covalues;

    switch (call->kind) {
    case BFTN_IDS:
        return bft_covalue_ids(covalues, after, limit, call->scratch,
                               call->scratch_len, used);
    case BFTN_DELETIONS:
        return bft_covalue_deletions(covalues, last, call->scratch,
                                     call->scratch_len, used);
    default:
        return bft_covalue_unsynced(covalues, last, call->scratch,
                                    call->scratch_len, used);
    }
}

static void run_list(struct bftn_call *call)
{
    /* The others have no numbers: these are of another call. */
    bool limited = call->kind == BFTN_IDS;
    uint64_t after = limited ? call->number[0] : 0;
    uint64_t limit = limited ? call->number[1] : UINT64_MAX;
    uint8_t id[BFT_COVALUE_ID_MAX];
    bft_slice last = {NULL, 0};
    const bft_id_list *list;
    size_t used;

    if (scratch_ask(call, SCRATCH_LIST) != BFT_OK)
        return;
    bftn_text_put(&call->out, "[");
    do {
        bft_status status = list_page(call, after, limit, last, &used);
        bft_slice newest;

        if (status != BFT_OK) {
            call_failed(call, status);
            return;
        }
        list = (const void *)call->scratch;
        newest =
            bftn_answer_ids(&call->out, call->scratch, call->kind == BFTN_IDS);
        after += list->count;
        limit -= list->count;
        if (newest.len != 0 && newest.len <= sizeof(id)) {
            memcpy(id, newest.data, newest.len);
            last = (bft_slice){id, newest.len};
        }
    } while (list->more != 0 && list->count != 0 && limit != 0 &&
             !call->out.failed);
    bftn_text_put(&call->out, "]");
    answer_out(call);
}

/* --- writes ------------------------------------------------------------------------------ */

static bft_durability durability_of(const struct bftn_call *call)
{
    return (bft_durability)call->number[0];
}

static void run_apply(struct bftn_call *call)
{
    bft_covalue_applied applied;
    enum { ROWS = BFTN_RESULTS - 3 };
    uint64_t rows[ROWS] = {0};
    bft_status status = bft_covalue_apply_packed(
        call->store->covalues, call->text[0].data, call->text[0].len,
        durability_of(call), rows, ROWS, &applied);

    if (status != BFT_OK) {
        call_failed(call, status);
        return;
    }
    give(call, applied.lsn);
    give(call, applied.changes);
    give(call, applied.before);
    for (size_t i = 0; i < ROWS; i++)
        give(call, rows[i]);
}

static void run_erase(struct bftn_call *call)
{
    bft_covalue_applied applied = {0};
    bft_status status = bft_covalue_erase(call->store->covalues, call->text[0],
                                          durability_of(call), &applied);

    if (status != BFT_OK && status != BFT_NOT_FOUND) {
        call_failed(call, status);
        return;
    }
    give(call, applied.lsn);
    give(call, applied.changes);
    give(call, status == BFT_OK);
}

/* --- locks ---------------------------------------------------------------------------------- */

static void run_lock_get(struct bftn_call *call)
{
    bft_covalue_lock lock;
    bft_status status =
        bft_covalue_lock_get(call->store->covalues, call->text[0], &lock);

    if (status != BFT_OK && status != BFT_NOT_FOUND) {
        call_failed(call, status);
        return;
    }
    give(call, status == BFT_OK);
    if (status != BFT_OK)
        return;
    bftn_answer_lock(&call->out, call->text[0], &lock);
    answer_out(call);
}

/* A number of milliseconds; one that is no limit stays none. */
static int64_t milliseconds(uint64_t number)
{
    return number > INT64_MAX ? INT64_MAX : (int64_t)number;
}

static void run_lock_change(struct bftn_call *call)
{
    bft_covalue_store *covalues = call->store->covalues;
    bft_slice key = call->text[0];
    bft_slice holder = call->text[1];
    bft_covalue_lock_result result = BFT_LOCK_ACQUIRED;
    uint64_t offset = 0;
    bft_status status;

    if (call->kind == BFTN_LOCK_ACQUIRE)
        status = bft_covalue_lock_acquire(
            covalues, key, holder, milliseconds(call->number[0]),
            milliseconds(call->number[1]), milliseconds(call->number[2]),
            &result, &offset);
    else if (call->kind == BFTN_LOCK_RENEW)
        status = bft_covalue_lock_renew(covalues, key, holder, call->number[0]);
    else
        status = bft_covalue_lock_release(covalues, key, holder,
                                          milliseconds(call->number[0]));
    if (status != BFT_OK) {
        call_failed(call, status);
        return;
    }
    give(call, result);
    give(call, offset);
}

/* --- the database ------------------------------------------------------------------------------ */

static bft_status store_start(struct bftn_call *call, struct bftn_store *store)
{
    bft_options options = {
        .size = sizeof(options),
        .storage = (bft_storage)call->number[0],
        /* The database's own durability stays the default: another handle of
         * its engine may have asked for another one. */
        .durability = BFT_DEFAULT,
        .memory_bytes = call->number[2],
        .log_bytes = call->number[3],
        .leaf_bytes = call->number[4] > UINT32_MAX ? UINT32_MAX
                                                   : (uint32_t)call->number[4],
        .must_exist = (call->number[5] & BFTN_MUST_EXIST) != 0,
        .error_if_exists = (call->number[5] & BFTN_ERROR_IF_EXISTS) != 0,
        .compress = (call->number[5] & BFTN_COMPRESS) != 0,
    };
    bft_covalue_options covalue_options = {
        .size = sizeof(covalue_options),
        .durability = (bft_durability)call->number[1],
    };
    bft_status status;

    status = bft_open(store->path, &options, &store->db);
    if (status != BFT_OK) {
        call_failed(call, status);
        return status;
    }
    status = bft_covalue_open(store->db, &covalue_options, &store->covalues);
    if (status != BFT_OK) {
        call_failed(call, status);
        (void)bft_close(store->db);
    }
    return status;
}

static void store_free(struct bftn_store *store)
{
    (void)pthread_cond_destroy(&store->quiet);
    (void)pthread_mutex_destroy(&store->lock);
    free(store->path);
    free(store);
}

static void run_open(struct bftn_call *call)
{
    bft_slice path = call->text[0];
    struct bftn_store *store;

    if (path.len == 0 || memchr(path.data, '\0', path.len) != NULL) {
        bftn_call_refuse(call, BFT_INVALID,
                         "the path is empty or has a zero byte in it");
        return;
    }
    store = calloc(1, sizeof(*store));
    if (store == NULL) {
        (void)out_of_memory(call, sizeof(*store));
        return;
    }
    (void)pthread_mutex_init(&store->lock, NULL);
    (void)pthread_cond_init(&store->quiet, NULL);
    store->path = malloc(path.len + 1);
    if (store->path == NULL) {
        (void)out_of_memory(call, path.len + 1);
        store_free(store);
        return;
    }
    memcpy(store->path, path.data, path.len);
    store->path[path.len] = '\0';
    if (store_start(call, store) != BFT_OK) {
        store_free(store);
        return;
    }
    call->store = store;
}

void bftn_store_enter(struct bftn_store *store)
{
    (void)pthread_mutex_lock(&store->lock);
    store->users++;
    (void)pthread_mutex_unlock(&store->lock);
}

void bftn_store_leave(struct bftn_store *store)
{
    (void)pthread_mutex_lock(&store->lock);
    if (--store->users == 0)
        (void)pthread_cond_broadcast(&store->quiet);
    (void)pthread_mutex_unlock(&store->lock);
}

static void run_close(struct bftn_call *call)
{
    struct bftn_store *store = call->store;
    bft_status status;

    (void)pthread_mutex_lock(&store->lock);
    while (store->users != 0)
        (void)pthread_cond_wait(&store->quiet, &store->lock);
    (void)pthread_mutex_unlock(&store->lock);
    bft_covalue_close(store->covalues);
    status = bft_close(store->db);
    if (status != BFT_OK)
        call_failed(call, status);
    call->store = NULL;
    store_free(store);
}

static void run_on_database(struct bftn_call *call)
{
    bft_db *db = call->store->db;
    bft_status status;

    switch (call->kind) {
    case BFTN_DURABLE:
        status = bft_wait_durable(db, call->number[0]);
        break;
    case BFTN_SYNC:
        status = bft_sync(db);
        break;
    case BFTN_CHECKPOINT:
        status = bft_checkpoint(db);
        break;
    default:
        status = bft_verify(db);
        break;
    }
    if (status != BFT_OK)
        call_failed(call, status);
}

static void run_stats(struct bftn_call *call)
{
    char text[STATS_TEXT];
    size_t len;
    bft_status status =
        bft_stats_json(call->store->db, text, sizeof(text), &len);

    if (status != BFT_OK) {
        call_failed(call, status);
        return;
    }
    bftn_text_add(&call->out, text, len);
    answer_out(call);
}

static void run_census(struct bftn_call *call)
{
    bft_covalue_census census = {.size = sizeof(census)};
    bft_status status = bft_covalue_check(call->store->covalues, &census);

    if (status != BFT_OK) {
        call_failed(call, status);
        return;
    }
    bftn_answer_census(&call->out, &census);
    answer_out(call);
}

/* --- the door --------------------------------------------------------------------------------------- */

static void dispatch(struct bftn_call *call)
{
    switch (call->kind) {
    case BFTN_OPEN:
        run_open(call);
        return;
    case BFTN_CLOSE:
        run_close(call);
        return;
    case BFTN_APPLY:
        run_apply(call);
        return;
    case BFTN_ERASE:
        run_erase(call);
        return;
    case BFTN_ROW:
        run_row(call);
        return;
    case BFTN_LOAD:
        run_load(call);
        return;
    case BFTN_KNOWN:
        run_known(call);
        return;
    case BFTN_SESSIONS:
        run_sessions(call);
        return;
    case BFTN_SESSION:
        run_session(call);
        return;
    case BFTN_TRANSACTIONS:
        run_transactions(call);
        return;
    case BFTN_SIGNATURES:
        run_signatures(call);
        return;
    case BFTN_IDS:
    case BFTN_DELETIONS:
    case BFTN_UNSYNCED:
        run_list(call);
        return;
    case BFTN_COUNT:
        give(call, bft_covalue_count(call->store->covalues));
        return;
    case BFTN_LOCK_GET:
        run_lock_get(call);
        return;
    case BFTN_LOCK_ACQUIRE:
    case BFTN_LOCK_RENEW:
    case BFTN_LOCK_RELEASE:
        run_lock_change(call);
        return;
    case BFTN_DURABLE:
    case BFTN_SYNC:
    case BFTN_CHECKPOINT:
    case BFTN_VERIFY:
        run_on_database(call);
        return;
    case BFTN_STATS:
        run_stats(call);
        return;
    case BFTN_CENSUS:
        run_census(call);
        return;
    case BFTN_CALLS:
        return;
    }
}

void bftn_call_run(struct bftn_call *call)
{
    assert(call->kind < BFTN_CALLS);
    call->status = BFT_OK;
    call->results = 0;
    call->answered = false;
    call->strings = 0;
    call->place_bytes = 0;
    bftn_call_trim(call);
    dispatch(call);
}

static void scratch_free(struct bftn_call *call)
{
    free(call->scratch);
    call->scratch = NULL;
    call->scratch_len = 0;
}

void bftn_call_trim(struct bftn_call *call)
{
    bftn_text_reset(&call->out, OUT_KEEP);
    if (call->scratch_len > SCRATCH_KEEP)
        scratch_free(call);
}

void bftn_call_free(struct bftn_call *call)
{
    bftn_text_free(&call->out);
    scratch_free(call);
}
