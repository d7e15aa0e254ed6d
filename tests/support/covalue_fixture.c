#include "covalue_fixture.h"

#include <assert.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ok(call) assert_int_equal(BFT_OK, (call))

/* --- opening ------------------------------------------------------------------------- */

static void store_open(struct covalue_fixture *f)
{
    ok(bft_open(f->path, &f->options, &f->db));
    ok(bft_covalue_open(f->db, NULL, &f->store));
}

static void store_close(struct covalue_fixture *f)
{
    bft_covalue_close(f->store);
    ok(bft_close(f->db));
}

static void make_memory(struct covalue_fixture *f)
{
    snprintf(f->path, sizeof(f->path), "/covalue");
    f->memory = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f->memory);
    f->surroundings.vfs = f->memory;
    f->options.internal = &f->surroundings;
}

static void make_room(struct covalue_fixture *f)
{
    const char *tmp = getenv("TMPDIR");

    if (BFT_WITH_THREADS) {
        snprintf(f->path, sizeof(f->path), "%s/covalue-XXXXXX",
                 tmp != NULL ? tmp : "/tmp");
        assert_non_null(mkdtemp(f->path));
        return;
    }
    make_memory(f);
}

struct covalue_fixture *covalue_fixture_open(uint64_t budget)
{
    struct covalue_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->options =
        (bft_options){.size = sizeof(f->options), .memory_bytes = budget};
    make_room(f);
    store_open(f);
    return f;
}

struct covalue_fixture *covalue_fixture_open_memory(void)
{
    struct covalue_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->options = (bft_options){.size = sizeof(f->options),
                               .memory_bytes = 1 << 20,
                               .no_threads = true};
    make_memory(f);
    store_open(f);
    return f;
}

void covalue_fixture_reopen(struct covalue_fixture *f)
{
    store_close(f);
    store_open(f);
}

void covalue_fixture_close(struct covalue_fixture *f)
{
    (void)cv_census(f);
    covalue_fixture_drop(f);
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    (void)rmdir(path);
}

void covalue_fixture_drop(struct covalue_fixture *f)
{
    store_close(f);
    if (f->memory != NULL)
        bfti_vfs_memory_destroy(f->memory);
    else
        remove_dir(f->path);
    free(f);
}

bft_slice cv_text(const char *chars)
{
    return (bft_slice){chars, strlen(chars)};
}

bool cv_is_text(const void *data, size_t len, const char *chars)
{
    return len == strlen(chars) && memcmp(data, chars, len) == 0;
}

bool cv_last_error_has(const char *chars)
{
    char error[512];

    (void)bft_last_error(error, sizeof(error));
    return strstr(error, chars) != NULL;
}

/* --- ops ---------------------------------------------------------------------------- */

bft_covalue_op cv_op_covalue(const char *id, const char *header)
{
    return (bft_covalue_op){
        .kind = BFT_OP_COVALUE, .id = cv_text(id), .value = cv_text(header)};
}

bft_covalue_op cv_op_find(const char *id)
{
    return (bft_covalue_op){
        .kind = BFT_OP_COVALUE, .flags = BFT_OP_FIND, .id = cv_text(id)};
}

bft_covalue_op cv_op_session(uint64_t covalue, const char *id,
                             uint64_t last_idx, const char *signature,
                             uint64_t bytes)
{
    return (bft_covalue_op){.kind = BFT_OP_SESSION,
                            .row = covalue,
                            .idx = last_idx,
                            .bytes = bytes,
                            .id = cv_text(id),
                            .value = cv_text(signature)};
}

bft_covalue_op cv_op_transaction(uint64_t session, uint64_t idx,
                                 const char *value)
{
    return (bft_covalue_op){.kind = BFT_OP_TRANSACTION,
                            .row = session,
                            .idx = idx,
                            .value = cv_text(value)};
}

bft_covalue_op cv_op_signature(uint64_t session, uint64_t idx,
                               const char *signature)
{
    return (bft_covalue_op){.kind = BFT_OP_SIGNATURE,
                            .row = session,
                            .idx = idx,
                            .value = cv_text(signature)};
}

bft_covalue_op cv_op_deleted(const char *id)
{
    return (bft_covalue_op){.kind = BFT_OP_DELETED, .id = cv_text(id)};
}

bft_covalue_op cv_op_peer(const char *id, const char *peer, bool synced)
{
    return (bft_covalue_op){.kind = synced ? BFT_OP_SYNCED : BFT_OP_UNSYNCED,
                            .id = cv_text(id),
                            .value = cv_text(peer)};
}

bft_covalue_op cv_op_untrack(const char *id)
{
    return (bft_covalue_op){.kind = BFT_OP_UNTRACK, .id = cv_text(id)};
}

bft_covalue_op cv_op_with(bft_covalue_op op, uint32_t flags)
{
    op.flags |= flags;
    return op;
}

bft_status cv_apply(struct covalue_fixture *f, bft_covalue_op *ops,
                    size_t count)
{
    return bft_covalue_apply(f->store, ops, count, BFT_DEFAULT, NULL);
}

uint64_t cv_apply_one(struct covalue_fixture *f, bft_covalue_op op)
{
    ok(cv_apply(f, &op, 1));
    return op.result;
}

void cv_add_transactions(struct covalue_fixture *f, uint64_t session,
                         uint64_t from, uint64_t count)
{
    enum { AT_ONCE = 100 };
    char values[AT_ONCE][40];
    bft_covalue_op ops[AT_ONCE];

    while (count != 0) {
        size_t n = count < AT_ONCE ? (size_t)count : AT_ONCE;

        for (size_t i = 0; i < n; i++) {
            snprintf(values[i], sizeof(values[i]), "{\"n\":%llu}",
                     (unsigned long long)(from + i));
            ops[i] = cv_op_transaction(session, from + i, values[i]);
        }
        ok(cv_apply(f, ops, n));
        from += n;
        count -= n;
    }
}

uint64_t cv_make_covalue(struct covalue_fixture *f, const char *id,
                         const char *ses, uint64_t count)
{
    bft_covalue_op ops[] = {
        cv_op_covalue(id, "{\"h\":1}"),
        cv_op_with(cv_op_session(0, ses, count, "sig", 7), BFT_OP_LATEST),
    };

    ok(cv_apply(f, ops, 2));
    cv_add_transactions(f, ops[1].result, 0, count);
    return ops[1].result;
}

/* --- reads ---------------------------------------------------------------------------- */

bft_status cv_load(struct covalue_fixture *f, const char *id,
                   bft_covalue_what what)
{
    return bft_covalue_load(f->store, cv_text(id), what, f->buf, sizeof(f->buf),
                            &f->used);
}

static const void *at(const struct covalue_fixture *f, uint32_t place,
                      size_t len)
{
    assert_true(place <= f->used && len <= f->used - place);
    return (const char *)f->buf + place;
}

const bft_covalue_view *cv_view_of(const struct covalue_fixture *f)
{
    return at(f, 0, sizeof(bft_covalue_view));
}

const bft_session_row *cv_session_row(const struct covalue_fixture *f, size_t i)
{
    const bft_covalue_view *view = cv_view_of(f);
    const bft_session_row *rows =
        at(f, view->sessions, view->session_count * sizeof(*rows));

    assert_true(i < view->session_count);
    return &rows[i];
}

const bft_signature_row *cv_signature_row(const struct covalue_fixture *f,
                                          size_t i)
{
    const bft_covalue_view *view = cv_view_of(f);
    const bft_signature_row *rows =
        at(f, view->signatures, view->signature_count * sizeof(*rows));

    assert_true(i < view->signature_count);
    return &rows[i];
}

const bft_transaction_row *cv_transaction_row(const struct covalue_fixture *f,
                                              size_t i)
{
    const bft_covalue_view *view = cv_view_of(f);
    const bft_transaction_row *rows =
        at(f, view->transactions, view->transaction_count * sizeof(*rows));

    assert_true(i < view->transaction_count);
    return &rows[i];
}

const bft_id_list *cv_list_of(const struct covalue_fixture *f)
{
    return at(f, 0, sizeof(bft_id_list));
}

bool cv_place_is(const struct covalue_fixture *f, uint32_t place, uint32_t len,
                 const char *chars)
{
    return cv_is_text(at(f, place, len), len, chars);
}

bool cv_list_is(const struct covalue_fixture *f, size_t i, const char *id)
{
    const bft_id_list *list = cv_list_of(f);
    const uint32_t *ends = at(f, list->ends, list->count * sizeof(*ends));
    uint32_t from = i == 0 ? 0 : ends[i - 1];

    assert_true(i < list->count);
    return cv_place_is(f, list->text + from, ends[i] - from, id);
}

size_t cv_transactions(struct covalue_fixture *f, uint64_t session,
                       uint64_t from, uint64_t to)
{
    ok(bft_covalue_transactions(f->store, session, from, to, f->buf,
                                sizeof(f->buf), &f->used));
    return cv_view_of(f)->transaction_count;
}

size_t cv_signatures(struct covalue_fixture *f, uint64_t session, uint64_t from)
{
    ok(bft_covalue_signatures(f->store, session, from, f->buf, sizeof(f->buf),
                              &f->used));
    return cv_view_of(f)->signature_count;
}

size_t cv_deletions(struct covalue_fixture *f)
{
    ok(bft_covalue_deletions(f->store, (bft_slice){NULL, 0}, f->buf,
                             sizeof(f->buf), &f->used));
    return cv_list_of(f)->count;
}

size_t cv_unsynced(struct covalue_fixture *f)
{
    ok(bft_covalue_unsynced(f->store, (bft_slice){NULL, 0}, f->buf,
                            sizeof(f->buf), &f->used));
    return cv_list_of(f)->count;
}

bft_covalue_census cv_census(struct covalue_fixture *f)
{
    bft_covalue_census counts = {.size = sizeof(counts)};

    if (bft_covalue_check(f->store, &counts) != BFT_OK) {
        char said[256];

        (void)bft_last_error(said, sizeof(said));
        fail_msg("%s", said);
    }
    return counts;
}
