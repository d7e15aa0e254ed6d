/*
 * The engine beside LMDB and SQLite: the same random operations on all three,
 * and the same answers, closed and opened again every now and then.  The engine
 * is on files, mostly larger than its memory.
 *
 * BFT_SEED repeats a run (with background threads the engine's own steps come at
 * other times), BFT_DIFF_OPS says how many operations it has.  There are two, which
 * the build runs beside each other.
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "random.h"
#include "rival.h"
#include "tally.h"

enum {
    OPS = 500000,
    KEYS = 8000, /* of a tree, that are drawn from */
    KEY_MAX = 80,
    VALUE_MAX = 40000,
    CHANGES_MAX = 40,
    CHANGES_BYTES = 16 << 10, /* of values: memory for 1/8 of 256 KiB */
    SCAN_MAX = 60,
    NOISE = 1 << 20, /* bytes that values are pieces of */
    REOPEN_EVERY = 20000,
    REDRAW_EVERY = 4000, /* another part of the keys */
    RIVALS = 3,
};

static const struct rival *const rivals[RIVALS] = {&rival_bftree, &rival_lmdb,
                                                   &rival_sqlite};

static struct {
    char dir[300];
    void *store[RIVALS];
    struct rival_answer answer[RIVALS];
    struct rival_change change[CHANGES_MAX];
    uint8_t key[CHANGES_MAX + 2][KEY_MAX]; /* of the operation */
    size_t keys;
    uint8_t *noise, *expected; /* of a replace */
    unsigned style[RIVAL_TREES];
    bool past[RIVAL_PASTS];
    size_t middle, width; /* most keys are near there */
    uint64_t seed, op, ops, count[RIVAL_KINDS], records;
} run;

/* --- answers ------------------------------------------------------------------ */

void rival_say(struct rival_answer *answer, const void *bytes, size_t len)
{
    if (answer->cap - answer->len < len) {
        answer->cap = (answer->cap + len) * 2;
        answer->bytes = realloc(answer->bytes, answer->cap);
        assert_non_null(answer->bytes);
    }
    if (len)
        memcpy(answer->bytes + answer->len, bytes, len);
    answer->len += len;
}

void rival_say_record(struct rival_answer *answer, bft_slice key,
                      bft_slice value)
{
    size_t len[2] = {key.len, value.len};
    rival_say(answer, len, sizeof(len));
    rival_say(answer, key.data, key.len);
    rival_say(answer, value.data, value.len);
    answer->number++;
}

void rival_say_found(struct rival_answer *answer, const bft_slice *value)
{
    static const bft_slice none = {NULL, 0};
    if (value)
        rival_say_record(answer, none, *value);
    else
        rival_say(answer, "-", 1);
}

static bool same(const struct rival_answer *a, const struct rival_answer *b)
{
    return a->status == b->status && a->number == b->number &&
           a->len == b->len &&
           (a->len == 0 || !memcmp(a->bytes, b->bytes, a->len));
}

static void print_slice(const char *what, bft_slice slice)
{
    const uint8_t *bytes = slice.data;
    print_error("  %s of %zu bytes:", what, slice.len);
    for (size_t i = 0; i < slice.len && i < 40; i++)
        print_error(" %02x", bytes[i]);
    print_error("\n");
}

static void differ(const struct rival_op *op, unsigned other)
{
    static const char *const name[RIVAL_KINDS] = {"put",
                                                  "insert",
                                                  "replace",
                                                  "delete",
                                                  "get",
                                                  "seek",
                                                  "scan",
                                                  "count",
                                                  "end",
                                                  "delete range",
                                                  "batch",
                                                  "txn",
                                                  "snapshot",
                                                  "get of a snapshot",
                                                  "scan of a snapshot",
                                                  "end of a snapshot"};
    const struct rival_answer *a = &run.answer[0], *b = &run.answer[other];
    size_t at = 0;
    while (at < a->len && at < b->len && a->bytes[at] == b->bytes[at])
        at++;
    print_error("%s of tree %u, how %d, %s, limit %zu, %zu changes\n",
                name[op->kind], op->tree, (int)op->how,
                op->backward ? "backward" : "forward", op->limit, op->changes);
    print_slice("key, or low,", op->key);
    print_slice("high", op->high);
    for (unsigned i = 0; i < RIVALS; i++)
        print_error("  %s: status %d, number %llu, %zu bytes\n",
                    rivals[i]->name, (int)run.answer[i].status,
                    (unsigned long long)run.answer[i].number,
                    run.answer[i].len);
    fail_msg("bftree and %s differ, from byte %zu of the answer on",
             rivals[other]->name, at);
}

static void ask(const struct rival_op *op)
{
    for (unsigned i = 0; i < RIVALS; i++) {
        struct rival_answer *answer = &run.answer[i];
        answer->status = BFT_OK;
        answer->number = answer->len = 0;
        rivals[i]->run(run.store[i], op, answer);
    }
    for (unsigned i = 1; i < RIVALS; i++)
        if (!same(&run.answer[0], &run.answer[i]))
            differ(op, i);
    run.count[op->kind]++;
    run.records += run.answer[0].number;
}

/* --- what is drawn ------------------------------------------------------------ */

/* Few bytes, all kinds of lengths, prefixes of each other. */
static size_t odd_key(uint64_t n, uint8_t *to)
{
    static const uint8_t byte[] = {0, 1, 0x7f, 0x80, 0xff, 'a', 'a', 'a'};
    uint64_t bits = random_mix(n + 1);
    size_t len = 1 + (size_t)(bits % 24);
    for (size_t i = 0; i < len; i++) {
        to[i] = byte[bits >> 8 & 7];
        bits = i % 16 == 15 ? random_mix(bits) : bits >> 3;
    }
    return len;
}

static size_t key_bytes(unsigned style, uint64_t n, uint8_t *to)
{
    if (style == 0) {
        for (unsigned i = 0; i < 8; i++)
            to[i] = (uint8_t)(n * 77 >> (8 * (7 - i)));
        return 8;
    }
    if (style == 1)
        return (size_t)snprintf((char *)to, KEY_MAX,
                                "user/%02u/session/%05u%.*s", (unsigned)(n % 7),
                                (unsigned)n, (int)(n % 19),
                                "/and/some/more/text");
    return odd_key(n, to);
}

static size_t draw_number(void)
{
    if (random_below(4) == 0)
        return random_below(KEYS);
    return (run.middle + random_below(run.width)) % KEYS;
}

static bft_slice key_of(unsigned tree, size_t n)
{
    uint8_t *to = run.key[run.keys++];
    bft_slice key = {to, 0};
    assert_true(run.keys <= CHANGES_MAX + 2);
    key.len = key_bytes(run.style[tree], n, to);
    return key;
}

/* Of MOST bytes or less. */
static bft_slice draw_value(size_t most)
{
    size_t kind = random_below(200), len;
    if (kind < 170)
        len = random_below(120);
    else if (kind < 199)
        len = random_below(800);
    else
        len = random_below(VALUE_MAX);
    if (len > most)
        len = most;
    return (bft_slice){run.noise + random_below(NOISE - len), len};
}

/* Both ends, or one of them, or none; seldom in the wrong order. */
static void draw_range(struct rival_op *op)
{
    size_t a = draw_number(), b = a + random_below(300);
    if (random_below(8))
        op->key = key_of(op->tree, a);
    if (random_below(8))
        op->high = key_of(op->tree, b % KEYS);
    if (op->key.len && op->high.len && rival_compare(op->key, op->high) > 0) {
        bft_slice low = op->high;
        op->high = op->key;
        op->key = low;
    }
    op->backward = random_below(2);
    op->limit = 1 + random_below(SCAN_MAX);
}

static void draw_changes(struct rival_op *op, size_t most)
{
    op->change = run.change;
    op->changes = 1 + random_below(most);
    for (size_t i = 0; i < op->changes; i++) {
        struct rival_change *c = &run.change[i];
        c->tree = (unsigned)random_below(RIVAL_TREES);
        c->key = key_of(c->tree, draw_number());
        c->there = random_below(5) > 1;
        c->value = draw_value(CHANGES_BYTES / op->changes);
    }
}

/* --- operations --------------------------------------------------------------- */

static void do_write(struct rival_op *op)
{
    op->key = key_of(op->tree, draw_number());
    op->value = draw_value(VALUE_MAX);
    ask(op);
}

/* Mostly by the value that is there, which a get tells. */
static void do_replace(struct rival_op *op)
{
    struct rival_op get = *op;
    get.kind = RIVAL_GET;
    op->key = get.key = key_of(op->tree, draw_number());
    ask(&get);
    if (run.answer[0].number && random_below(4)) {
        size_t len = run.answer[0].len - 2 * sizeof(size_t);
        run.expected = realloc(run.expected, len + 1);
        assert_non_null(run.expected);
        memcpy(run.expected, run.answer[0].bytes + 2 * sizeof(size_t), len);
        op->value = (bft_slice){run.expected, len};
    } else if (random_below(2)) {
        op->value = draw_value(VALUE_MAX);
    }
    if (!op->value.data || random_below(4))
        op->value2 = draw_value(VALUE_MAX);
    ask(op);
}

static void do_seek(struct rival_op *op)
{
    static const bft_seek how[] = {BFT_GE, BFT_GT, BFT_LE, BFT_LT, BFT_EQ};
    op->key = key_of(op->tree, draw_number());
    op->how = how[random_below(5)];
    ask(op);
}

static void do_range(struct rival_op *op)
{
    draw_range(op);
    ask(op);
}

/* Not too much of the tree. */
static void do_delete_range(struct rival_op *op)
{
    size_t from = draw_number();
    op->key = key_of(op->tree, from);
    op->high = key_of(op->tree, (from + random_below(200)) % KEYS);
    if (rival_compare(op->key, op->high) > 0)
        op->high = op->key;
    ask(op);
}

static void do_batch(struct rival_op *op)
{
    draw_changes(op, CHANGES_MAX);
    ask(op);
}

static void do_txn(struct rival_op *op)
{
    draw_changes(op, 8);
    op->commit = random_below(4) > 0;
    op->past = (unsigned)random_below(2); /* the isolation */
    draw_range(op);
    ask(op);
}

static void do_past(struct rival_op *op)
{
    size_t what = random_below(100);
    op->past = (unsigned)random_below(RIVAL_PASTS);
    if (!run.past[op->past]) {
        if (what >= 4)
            return;
        op->kind = RIVAL_PAST_TAKE;
        run.past[op->past] = true;
    } else if (what < 10) {
        op->kind = RIVAL_PAST_END;
        run.past[op->past] = false;
    } else if (what < 60) {
        op->kind = RIVAL_PAST_GET;
        op->key = key_of(op->tree, draw_number());
    } else {
        op->kind = RIVAL_PAST_SCAN;
        draw_range(op);
    }
    ask(op);
}

/* What is done how often, of 1,000. */
static const struct {
    void (*make)(struct rival_op *op);
    enum rival_kind kind;
    unsigned share;
} operations[] = {
    {do_write, RIVAL_PUT, 320},      {do_write, RIVAL_INSERT, 80},
    {do_write, RIVAL_DELETE, 159},   {do_write, RIVAL_GET, 200},
    {do_replace, RIVAL_REPLACE, 30}, {do_seek, RIVAL_SEEK, 70},
    {do_range, RIVAL_SCAN, 50},      {do_range, RIVAL_COUNT, 10},
    {do_range, RIVAL_END, 20},       {do_batch, RIVAL_BATCH, 15},
    {do_txn, RIVAL_TXN, 15},         {do_delete_range, RIVAL_DELETE_RANGE, 1},
    {do_past, RIVAL_PAST_TAKE, 30},
};
enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

static void one_operation(void)
{
    struct rival_op op;
    size_t left = random_below(1000), i = 0;
    memset(&op, 0, sizeof(op));
    run.keys = 0;
    op.tree = (unsigned)random_below(RIVAL_TREES);
    while (i + 1 < OPERATIONS && left >= operations[i].share)
        left -= operations[i++].share;
    op.kind = operations[i].kind;
    operations[i].make(&op);
}

/* --- a run -------------------------------------------------------------------- */

/* All there is, both ways. */
static void compare_all(void)
{
    struct rival_op op;
    memset(&op, 0, sizeof(op));
    op.kind = RIVAL_SCAN;
    op.limit = SIZE_MAX;
    for (op.tree = 0; op.tree < RIVAL_TREES; op.tree++) {
        op.backward = false;
        ask(&op);
        op.backward = true;
        ask(&op);
    }
}

static void open_all(void)
{
    for (unsigned i = 0; i < RIVALS; i++)
        run.store[i] = rivals[i]->open(run.dir);
}

static void close_all(void)
{
    memset(run.past, 0, sizeof(run.past));
    for (unsigned i = 0; i < RIVALS; i++)
        rivals[i]->close(run.store[i]);
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* With the folder and what it holds; where a failure was. */
static int end_run(void **state)
{
    (void)state;
    if (run.op <= run.ops)
        print_error("at operation %llu; BFT_SEED=%llu repeats it\n",
                    (unsigned long long)run.op, (unsigned long long)run.seed);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread any more */
    (void)nftw(run.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    for (unsigned i = 0; i < RIVALS; i++)
        free(run.answer[i].bytes);
    free(run.noise);
    free(run.expected);
    memset(&run, 0, sizeof(run)); /* for the next one */
    return 0;
}

static void begin_run(void)
{
    /* No other thread runs yet. */
    const char *ops =
        getenv("BFT_DIFF_OPS");         /* NOLINT(concurrency-mt-unsafe) */
    const char *tmp = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe) */
    run.seed = random_start();
    run.ops = ops ? strtoull(ops, NULL, 0) : OPS;
    snprintf(run.dir, sizeof(run.dir), "%s/differential-XXXXXX",
             tmp ? tmp : ".");
    assert_non_null(mkdtemp(run.dir));
    run.noise = malloc(NOISE);
    assert_non_null(run.noise);
    random_bytes(run.noise, NOISE);
    for (unsigned t = 0; t < RIVAL_TREES; t++)
        run.style[t] = (unsigned)random_below(3);
    run.width = KEYS;
}

static void three_stores_answer_the_same(void **state)
{
    (void)state;
    begin_run();
    open_all();
    for (run.op = 1; run.op <= run.ops; run.op++) {
        if (run.op % REDRAW_EVERY == 0) {
            run.middle = random_below(KEYS);
            run.width = 1 + random_below(random_below(2) ? 100 : KEYS);
        }
        one_operation();
        if (run.op % REOPEN_EVERY)
            continue;
        close_all();
        open_all();
        compare_all();
    }
    compare_all();
    close_all();
    print_message("%llu operations, %llu records compared: %llu scans, %llu "
                  "batches, %llu transactions, %llu snapshots\n",
                  (unsigned long long)run.ops, (unsigned long long)run.records,
                  (unsigned long long)run.count[RIVAL_SCAN],
                  (unsigned long long)run.count[RIVAL_BATCH],
                  (unsigned long long)run.count[RIVAL_TXN],
                  (unsigned long long)run.count[RIVAL_PAST_TAKE]);
    tally(TALLY_COMPARED, run.ops);
    for (int i = 0; i < RIVAL_KINDS && run.ops >= OPS; i++)
        assert_true(run.count[i] > 10);
}

static void another_three_answer_the_same(void **state)
{
    three_stores_answer_the_same(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(three_stores_answer_the_same, end_run),
        cmocka_unit_test_teardown(another_three_answer_the_same, end_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
