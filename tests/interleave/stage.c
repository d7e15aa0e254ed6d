#include "stage.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree_feed.h"
#include "fileio/vfs_memory.h"

/* --- failures ------------------------------------------------------------------ */

void stage_fail(struct stage *st, const char *format, ...)
{
    char text[600];
    va_list args;

    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sched_fail(st->s, text);
    abort();
}

void stage_expect(struct stage *st, bft_status status, const char *what)
{
    char text[400] = "";

    if (status == BFT_OK)
        return;
    (void)bft_last_error(text, sizeof(text));
    stage_fail(st, "%s: %s: %s", what, bft_strerror(status), text);
}

static void on_report(void *stage, bft_status status, const char *text)
{
    stage_fail(stage, "a step failed: %s: %s", bft_strerror(status), text);
}

/* --- opening --------------------------------------------------------------------- */

struct stage *stage_make(const struct scene *scene, struct sched *s)
{
    struct stage *st = calloc(1, sizeof(*st));

    assert(st);
    st->scene = scene;
    st->s = s;
    st->env = sched_env(s);
    st->value_bytes = 8;
    st->options = (bft_options){.size = sizeof(st->options),
                                .memory_bytes = 256 << 10,
                                .log_bytes = 128 << 10,
                                .log_segment_bytes = 64 << 10,
                                .leaf_bytes = 512,
                                .promote_percent = 100,
                                .no_threads = true,
                                .report = on_report,
                                .report_ctx = st};
    linear_init(&st->history);
    return st;
}

void stage_free(struct stage *st)
{
    linear_free(&st->history);
    free(st);
}

void stage_open(struct stage *st)
{
    st->scene->open(st);
}

static void open_again(struct stage *st)
{
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 512};

    st->surroundings.env = st->env;
    st->surroundings.vfs = st->vfs;
    st->options.internal = &st->surroundings;
    expect_fine(st, bft_open("/db", &st->options, &st->db));
    expect_fine(st, bft_tree_open(st->db, "t", &options, &st->tree[0]));
    expect_fine(st, bft_tree_open(st->db, "u", &options, &st->tree[1]));
}

void stage_database(struct stage *st)
{
    st->vfs = st->simulated ? bfti_vfs_sim_create(st->env, 1)
                            : bfti_vfs_memory_create(st->env);
    assert(st->vfs);
    open_again(st);
}

struct bfti_rec *stage_rec(struct stage *st)
{
    struct bfti_rec *rec = bfti_rec_current(st->db->engine->buffer.threads);

    if (rec == NULL)
        stage_fail(st, "no memory for a thread's record");
    return rec;
}

uint64_t stage_leaf(struct stage *st, unsigned key)
{
    struct bfti_rec *rec = stage_rec(st);
    const struct bfti_tree *tree = bfti_handle_tree(stage_tree(st, key));
    uint64_t id;

    bfti_read_begin(rec);
    id = bfti_inner_find(bfti_tree_root(tree), stage_key(key));
    bfti_read_end(rec);
    return id;
}

void stage_freeze(struct stage *st, unsigned key)
{
    struct bfti_buffer *buffer = &st->db->engine->buffer;
    struct bfti_entry *entry =
        bfti_table_entry(buffer->table, stage_leaf(st, key));
    uint64_t word = bfti_entry_word(entry);

    if (!bfti_word_in_memory(word))
        stage_fail(st, "the leaf is not in memory");
    bfti_latch(st->env, entry);
    bfti_freeze(stage_rec(st), bfti_page_at(buffer, word));
    bfti_unlatch(st->env, entry, false);
}

void stage_send_out(struct stage *st, unsigned key)
{
    struct bfti_buffer *buffer = &st->db->engine->buffer;
    uint64_t id = stage_leaf(st, key);
    bool done;

    stage_freeze(st, key);
    expect_fine(st, bfti_merge(buffer, stage_rec(st), id, 0, &done));
    if (!bfti_word_on_disk(
            bfti_entry_word(bfti_table_entry(buffer->table, id))))
        stage_fail(st, "the leaf has not left memory");
}

/* --- operations --------------------------------------------------------------------- */

uint64_t stage_tick(struct stage *st)
{
    return ++st->now;
}

bft_slice stage_key(unsigned key)
{
    static const char names[] = "abcdefghijklmnop";

    assert(key < STAGE_KEYS);
    return (bft_slice){names + key, 1};
}

bft_tree *stage_tree(struct stage *st, unsigned key)
{
    return st->tree[key / STAGE_KEYS_OF_TREE];
}

bft_slice stage_value(struct stage *st, uint8_t buf[STAGE_VALUE_MAX],
                      uint32_t number)
{
    assert(st->value_bytes <= STAGE_VALUE_MAX);
    memset(buf, (int)number, st->value_bytes);
    memcpy(buf, &number, sizeof(number));
    return (bft_slice){buf, st->value_bytes};
}

uint32_t stage_number(struct stage *st, bft_status status, const uint8_t *buf,
                      size_t len)
{
    uint32_t number;

    if (status == BFT_NOT_FOUND)
        return LINEAR_ABSENT;
    stage_expect(st, status, "a read");
    memcpy(&number, buf, sizeof(number));
    for (size_t i = sizeof(number); i < len; i++)
        if (buf[i] != (uint8_t)number)
            stage_fail(st, "a value that nobody wrote");
    return number;
}

void stage_put(struct stage *st, unsigned thread, unsigned key, uint32_t value)
{
    uint8_t buf[STAGE_VALUE_MAX];
    struct linear_op op = {.kind = LINEAR_PUT, .thread = thread, .key = key};

    linear_set(&op, key, value);
    op.call = stage_tick(st);
    expect_fine(st, bft_put(stage_tree(st, key), stage_key(key),
                            stage_value(st, buf, value)));
    op.end = stage_tick(st);
    linear_add(&st->history, &op);
}

uint32_t stage_get(struct stage *st, unsigned thread, unsigned key)
{
    uint8_t buf[STAGE_VALUE_MAX];
    struct linear_op op = {.kind = LINEAR_GET, .thread = thread, .key = key};
    size_t len;
    bft_status status;

    op.call = stage_tick(st);
    status =
        bft_get(stage_tree(st, key), stage_key(key), buf, sizeof(buf), &len);
    op.expected = stage_number(st, status, buf, len);
    op.end = stage_tick(st);
    linear_add(&st->history, &op);
    return op.expected;
}

/* --- the end -------------------------------------------------------------------------- */

static size_t tell_op(const struct linear_op *op, char *text, size_t len)
{
    static const char *const names[LINEAR_KINDS] = {
        "get",     "put",      "delete", "insert",   "exists",
        "replace", "conflict", "batch",  "snapshot", "commit"};
    size_t n = (size_t)snprintf(text, len, "; %c %llu-%llu %s",
                                'A' + op->thread, (unsigned long long)op->call,
                                (unsigned long long)op->end, names[op->kind]);

    if (op->kind == LINEAR_GET && n < len)
        n += (size_t)snprintf(text + n, len - n, " %c is %u", 'a' + op->key,
                              op->expected);
    for (unsigned key = 0; key < LINEAR_KEYS && n < len; key++) {
        if (op->reads >> key & 1)
            n += (size_t)snprintf(text + n, len - n, " %c:%u", 'a' + key,
                                  op->seen[key]);
        if (n < len && op->writes >> key & 1)
            n += (size_t)snprintf(text + n, len - n, " %c=%u", 'a' + key,
                                  op->value[key]);
    }
    return n < len ? n : len - 1;
}

static void check_history(struct stage *st)
{
    char text[500] = "";
    size_t n = 0;

    if (linear_check(&st->history, NULL) == LINEAR_YES)
        return;
    /* The last: those before them are the scene's beginning. */
    for (size_t i = st->history.count > 10 ? st->history.count - 10 : 0;
         i < st->history.count; i++)
        n += tell_op(&st->history.op[i], text + n, sizeof(text) - n);
    stage_fail(st, "no order explains what was read%s", text);
}

/* The keys that were written have at the end what they must have. */
static void look_at_keys(struct stage *st)
{
    uint32_t keys = 0;

    for (size_t i = 0; i < st->history.count; i++)
        keys |= st->history.op[i].writes;
    for (unsigned key = 0; key < STAGE_KEYS; key++)
        if (keys >> key & 1)
            (void)stage_get(st, SCENE_THREADS, key);
    check_history(st);
}

static bool is_within(const bft_change *change, unsigned key)
{
    bft_slice k = stage_key(key);

    if (change->op == BFT_CHANGE_DELETE_RANGE)
        return bfti_key_compare(change->key, k) <= 0 &&
               (change->high.len == 0 || bfti_key_compare(k, change->high) < 0);
    return bfti_key_compare(change->key, k) == 0;
}

static void apply(struct stage *st, const bft_change *change, uint32_t *copy)
{
    for (unsigned key = 0; key < STAGE_KEYS; key++) {
        uint32_t id;

        expect_fine(st, bft_tree_id(stage_tree(st, key), &id));
        if (change->tree_id != id || !is_within(change, key))
            continue;
        if (change->op == BFT_CHANGE_PUT)
            memcpy(&copy[key], change->value.data, sizeof(*copy));
        else if (change->op == BFT_CHANGE_DELETE ||
                 change->op == BFT_CHANGE_DELETE_RANGE)
            copy[key] = LINEAR_ABSENT;
    }
}

void stage_copy(struct stage *st)
{
    uint32_t copy[STAGE_KEYS] = {LINEAR_ABSENT};
    bft_feed *feed;
    bft_commit commit;
    bft_status status;

    expect_fine(st, bft_sync(st->db));
    expect_fine(st, bft_feed_open(st->db, 0, NULL, &feed));
    while ((status = bft_feed_next(feed, 0, &commit)) == BFT_OK)
        for (size_t i = 0; i < commit.count; i++)
            apply(st, &commit.changes[i], copy);
    if (status != BFT_NOT_FOUND)
        stage_expect(st, status, "a feed");
    bft_feed_close(feed);
    for (unsigned key = 0; key < STAGE_KEYS; key++)
        if (stage_get(st, SCENE_THREADS, key) != copy[key])
            stage_fail(st, "by the feed %c is %u, and it is not", 'a' + key,
                       copy[key]);
}

void stage_crash(struct stage *st)
{
    struct bfti_vfs *image;

    expect_fine(st, bfti_sim_image(st->vfs, BFTI_SIM_KILL, 1, &image));
    expect_fine(st, bft_close(st->db));
    bfti_vfs_sim_destroy(st->vfs);
    st->vfs = image;
    open_again(st);
    look_at_keys(st);
    expect_fine(st, bft_verify(st->db));
}

void stage_close(struct stage *st)
{
    if (st->db) {
        look_at_keys(st);
        expect_fine(st, bft_verify(st->db));
    }
    if (st->scene->end)
        st->scene->end(st);
    if (st->db)
        expect_fine(st, bft_close(st->db));
    if (st->vfs && st->simulated)
        bfti_vfs_sim_destroy(st->vfs);
    else if (st->vfs)
        bfti_vfs_memory_destroy(st->vfs);
}
