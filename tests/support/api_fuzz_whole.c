/* Calls on whole trees and databases: bulk loads, feeds, backups. */
#include "api_fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* --- bulk loads -------------------------------------------------------------- */

struct load {
    struct model_map map; /* what it has handed over */
    unsigned n, count;
    unsigned from, step; /* of its keys' numbers */
    unsigned bad_at;     /* a key as the one before it; 0: none */
    unsigned end_at;     /* then END; 0: never */
    bft_status end;
    char key[32];
    uint8_t value[200];
    uint64_t *number;
};

static bft_status load_next(void *ctx, bft_bulk_record *record)
{
    struct load *l = ctx;
    struct model_value value = {++*l->number, random_below(sizeof(l->value))};
    bool again = l->bad_at && l->n == l->bad_at;

    fuzz_assert(record->key.len == 0 && record->value.len == 0 &&
                record->bytes == 0 && record->read == NULL);
    if (l->end_at && l->n == l->end_at)
        return l->end;
    if (l->n == l->count)
        return BFT_NOT_FOUND;
    if (!again)
        (void)snprintf(l->key, sizeof(l->key), "key %06u",
                       l->from + l->n * l->step);
    l->n++;
    model_value_bytes(value, 0, l->value, (size_t)value.len);
    record->key = (bft_slice){l->key, strlen(l->key)};
    record->value = (bft_slice){l->value, (size_t)value.len};
    if (!again)
        model_map_put(&l->map, record->key, value);
    return BFT_OK;
}

/* What the callback will do, and what comes of it. */
static void load_spoil(struct load *l, struct allowed *a)
{
    switch (random_below(8)) {
    case 0:
        if (l->count < 2)
            break;
        l->bad_at = 1 + (unsigned)random_below(l->count - 1);
        api_blame(a, BFT_INVALID);
        break;
    case 1:
        if (l->count == 0)
            break;
        l->end_at = 1 + (unsigned)random_below(l->count);
        l->end = BFT_UNSUPPORTED;
        api_blame(a, BFT_UNSUPPORTED);
        break;
    }
}

/* Sorted records into TREE, which has some: if it fails half-way, the first ones. */
static void merge(struct life *life, struct tree_arg tree)
{
    struct allowed a = {0, false};
    struct load l = {.count = (unsigned)random_below(600),
                     .from = (unsigned)random_below(50),
                     .step = 1 + (unsigned)random_below(3),
                     .number = &life->number};
    bool no_next = random_below(10) == 0;
    struct model_map put = {0};
    uint64_t records = 77;
    bool whole;

    if (no_next)
        api_blame(&a, BFT_INVALID);
    else
        load_spoil(&l, &a);
    whole = api_judge(
        a, BFT_OK,
        bft_bulk_merge(tree.handle, no_next ? NULL : load_next, &l, &records),
        "bft_bulk_merge");
    fuzz_assert(whole ? records == l.map.count : records <= l.map.count);
    for (size_t i = 0; i < records; i++)
        model_map_put(&put, model_map_key(&l.map, i), l.map.record[i].value);
    api_pending_apply(&life->map[tree.t], &put);
    api_reached.merges += records > 0;
    model_map_clear(&put);
    model_map_clear(&l.map);
}

void api_bulk_load(struct life *life)
{
    struct allowed a = {0, false};
    struct load l = {.count = (unsigned)random_below(200),
                     .step = 1,
                     .number = &life->number};
    struct tree_arg tree = random_below(2)
                               ? api_any_tree(life, &a)
                               : (struct tree_arg){life->tree[2], 2};
    bft_bulk_options options = {.size = sizeof(options)};
    bool no_next = random_below(10) == 0;
    uint64_t records = 77;
    bft_status good;

    if (!tree.handle)
        api_blame(&a, BFT_INVALID);
    if (random_below(10) == 0) {
        options.fill_percent = 101 + (uint32_t)random_below(900);
        api_blame(&a, BFT_INVALID);
    }
    if (no_next)
        api_blame(&a, BFT_INVALID);
    good = life->map[tree.t].count                 ? BFT_EXISTS
           : api_past_is_open(life) && l.count > 0 ? BFT_BUSY
                                                   : BFT_OK;
    if (a.odd || good == BFT_OK)
        load_spoil(&l, &a);
    /* Blamed for either: what is found first. */
    if (a.odd)
        a.mask |= 1u << -(int)good & ~1u;
    if (api_judge(a, good,
                  bft_bulk_load(tree.handle, &options,
                                no_next ? NULL : load_next, &l, &records),
                  "bft_bulk_load")) {
        fuzz_assert(records == l.map.count);
        api_pending_apply(&life->map[tree.t], &l.map);
        api_reached.loads += records > 0;
        /* A cursor goes on with the loaded tree; what was pending, too. */
    } else {
        fuzz_assert(records == 0);
    }
    model_map_clear(&l.map);
    if (!a.odd && good == BFT_EXISTS)
        merge(life, tree);
}

/* --- feeds ------------------------------------------------------------------- */

static void feed_open(struct life *life)
{
    struct allowed a = {0, false};
    bft_feed_options options = {.size = sizeof(options),
                                .hold_bytes = random_below(3) << 17};
    bft_db *db = random_below(8) ? life->f->db : NULL;
    bool no_out = random_below(8) == 0;
    bft_feed *feed = (bft_feed *)api_bytes;
    uint64_t lsn = random_below(2) ? BFT_FEED_NOW : bft_feed_lowest(db);

    if (random_below(8) == 0) {
        options.size = random_below(2) ? 0 : sizeof(options) + 8;
        api_blame(&a, BFT_INVALID);
    }
    if (!db || no_out)
        api_blame(&a, BFT_INVALID);
    if (api_judge(a, BFT_OK,
                  bft_feed_open(db, lsn, &options, no_out ? NULL : &feed),
                  "bft_feed_open"))
        life->feed = feed;
    else if (!no_out)
        fuzz_assert(feed == NULL);
}

/* Each change is one that can be read. */
static void feed_commit(struct life *life, const bft_commit *commit)
{
    uint8_t buf[64];
    size_t got = 77;

    fuzz_assert(commit->count > 0 && commit->lsn == bft_feed_lsn(life->feed));
    api_reached.commits++;
    for (size_t i = 0; i < commit->count; i++) {
        const bft_change *c = &commit->changes[i];
        bool put = c->op == BFT_CHANGE_PUT;
        bft_status status =
            bft_feed_value(life->feed, c, 0, buf, sizeof(buf), &got);

        fuzz_assert(c->op >= BFT_CHANGE_PUT && c->op <= BFT_CHANGE_TREE_LOAD);
        fuzz_assert(c->tree_id != 0);
        fuzz_assert((put || c->op == BFT_CHANGE_DELETE) == (c->key.len > 0));
        fuzz_assert(put ? status == BFT_OK || status == BFT_GONE
                        : status == BFT_INVALID);
        if (put && status == BFT_OK && c->value.len)
            fuzz_assert(memcmp(buf, c->value.data, got) == 0);
    }
}

static void feed_next(struct life *life)
{
    bft_commit commit = {77, NULL, 77};
    bft_feed *feed = random_below(10)  ? life->feed
                     : random_below(2) ? life->left_feed
                                       : NULL;
    bool no_out = random_below(10) == 0;
    uint64_t before = bft_feed_lsn(life->feed);
    bft_status status = bft_feed_next(feed, 0, no_out ? NULL : &commit);

    if (feed != life->feed || no_out) {
        fuzz_assert(status == BFT_INVALID);
        fuzz_assert(no_out || (commit.lsn == 0 && commit.count == 0));
    } else if (status == BFT_OK) {
        fuzz_assert(commit.lsn > before);
        feed_commit(life, &commit);
    } else {
        fuzz_assert(status == BFT_NOT_FOUND || status == BFT_GONE);
        fuzz_assert(commit.lsn == 0 && commit.count == 0);
        fuzz_assert(bft_feed_lsn(life->feed) == before);
    }
}

void api_feed(struct life *life)
{
    if (!life->feed) {
        feed_open(life);
        return;
    }
    switch (random_below(60)) {
    case 0:
        bft_feed_stop(life->feed);
        bft_feed_stop(NULL);
        fuzz_assert(bft_feed_next(life->feed, BFT_FEED_FOREVER,
                                  &(bft_commit){0, NULL, 0}) == BFT_INVALID);
        bft_feed_close(life->feed);
        bft_feed_close(NULL);
        life->feed = NULL;
        break;
    case 1:
        fuzz_assert(bft_feed_lsn(life->left_feed) == 0);
        fuzz_assert(bft_feed_lowest(NULL) == 0);
        break;
    default:
        feed_next(life);
    }
}

/* --- backups ------------------------------------------------------------------ */

static bft_status progress(void *ctx, const bft_backup_progress *now)
{
    fuzz_assert(now->copied_bytes <= now->total_bytes);
    return *(bft_status *)ctx;
}

/* It has what the model has. */
static void copy_is_whole(struct life *life, const char *path)
{
    bft_options options = life->f->options;
    bft_db *db;

    options.must_exist = true;
    expect_ok(bft_open(path, &options, &db));
    expect_ok(bft_verify(db));
    for (unsigned t = 0; t < API_TREES; t++) {
        bft_tree_options o = {.size = sizeof(o), .must_exist = true};
        const struct model_map *map = &life->map[t];
        bft_tree *tree;
        bft_status status = bft_tree_open(db, api_tree_name[t], &o, &tree);
        uint64_t count = 77;

        fuzz_assert(status == (life->tree[t] ? BFT_OK : BFT_NOT_FOUND));
        if (!life->tree[t])
            continue;
        expect_ok(bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0},
                            &count));
        fuzz_assert(count == map->count);
        for (size_t i = 0; i < map->count; i++) {
            void *value;
            size_t len;
            expect_ok(bft_get_copy(tree, model_map_key(map, i), &value, &len));
            fuzz_assert(len == map->record[i].value.len &&
                        model_value_is(map->record[i].value, 0, value, len));
            bft_free(value);
        }
    }
    expect_ok(bft_close(db));
}

void api_backup(struct life *life)
{
    struct allowed a = {0, false};
    bft_status answer = random_below(4) ? BFT_OK : BFT_UNSUPPORTED;
    bft_backup_options options = {
        .size = sizeof(options), .progress = progress, .ctx = &answer};
    bft_db *db = random_below(8) ? life->f->db : NULL;
    char text[64];
    const char *path = text;

    (void)snprintf(text, sizeof(text), "/copy-%u", life->copies);
    if (answer != BFT_OK)
        api_blame(&a, answer);
    switch (random_below(8)) {
    case 0:
        path = random_below(2) ? NULL : "";
        api_blame(&a, BFT_INVALID);
        break;
    case 1:
        options.size = random_below(2) ? 0 : sizeof(options) + 8;
        api_blame(&a, BFT_INVALID);
        break;
    case 2:
        options.to = (bft_backup_to)(3 + random_below(90));
        api_blame(&a, BFT_INVALID);
        break;
    }
    if (!db)
        api_blame(&a, BFT_INVALID);
    if (!api_judge(a, BFT_OK, bft_backup(db, path, &options), "bft_backup"))
        return;
    life->copies++;
    api_reached.copies++;
    copy_is_whole(life, text);
    /* It is gone with its last close: the same path is free, or it is in use. */
}
