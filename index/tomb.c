/*
 * Tombstones of ranges: the set of a tree's, and what readers ask of it.
 *
 * A set is not changed: another takes its place, and it is freed when no section
 * reads it any more.  Who changes it holds the tree's tombs_lock.  The tree's
 * word tells readers when: its number goes up with each change, and pieces with a
 * higher number are about to be, which only writers heed.  Its lowest bit says
 * that readers have to look at all.
 */
#include "tomb.h"
#include "catalogue.h"
#include "snapshot.h"

#include <assert.h>

enum {
    CROWD = 64,            /* pieces of a tree */
    CROWD_BYTES = 1 << 16, /* of the catalogue, in all trees */
    FULL_BYTES = 1 << 18,  /* likewise */
    FULL_SHARE = 2, /* of what is free of it: one deletion more may need as
                       much again, for the gaps between others' pieces */
    CROWD_SHARE = 4,
    PATIENCE = 4, /* rounds of a copy before clearing gives way to it */
};

/* --- sets ------------------------------------------------------------------ */

struct bfti_tombs *bfti_tombs_make(struct bfti_engine *engine, size_t count,
                                   size_t bytes)
{
    size_t size =
        sizeof(struct bfti_tombs) + count * sizeof(struct bfti_tomb) + bytes;
    struct bfti_tombs *tombs = bfti_alloc(engine->heap, size);
    if (!tombs)
        return NULL;
    memset(tombs, 0, sizeof(*tombs));
    tombs->size = size;
    tombs->cap = count;
    tombs->room = bytes;
    tombs->bytes = (uint8_t *)(tombs->tomb + count);
    return tombs;
}

/* LOW below HIGH, whose length 0 is the end? */
static bool is_below(bft_slice low, bft_slice high)
{
    return high.len == 0 || bfti_key_compare(low, high) < 0;
}

static uint32_t add_key(struct bfti_tombs *tombs, bft_slice key)
{
    uint32_t at = (uint32_t)tombs->used;
    if (key.len)
        memcpy(tombs->bytes + at, key.data, key.len);
    tombs->used += key.len;
    return at;
}

/* Add a piece at the end.  False: no room. */
static bool add(struct bfti_tombs *tombs, uint64_t born, uint64_t stamp,
                bft_slice low, bft_slice high)
{
    struct bfti_tomb *tomb = &tombs->tomb[tombs->count];
    if (tombs->count == tombs->cap ||
        tombs->room - tombs->used < low.len + high.len)
        return false;
    assert(is_below(low, high));
    assert(tombs->count == 0 ||
           (tomb[-1].high_len &&
            bfti_key_compare(bfti_tomb_high(tombs, &tomb[-1]), low) <= 0));
    tomb->born = born;
    tomb->stamp = stamp;
    tomb->low_len = (uint16_t)low.len;
    tomb->high_len = (uint16_t)high.len;
    tomb->low_at = add_key(tombs, low);
    tomb->high_at = add_key(tombs, high);
    tombs->count++;
    return true;
}

/* The stamp of OLD's TOMB, for another set. */
static uint64_t stamp_kept(const struct bfti_tombs *old,
                           const struct bfti_tomb *tomb)
{
    return tomb->stamp ? tomb->stamp : atomic_load(&old->stamp);
}

bool bfti_tombs_without(struct bfti_tombs *fresh, const struct bfti_tombs *old,
                        bft_slice low, bft_slice high)
{
    bool fits = true;
    fresh->count = fresh->used = 0;
    for (size_t i = 0; old && i < old->count && fits; i++) {
        const struct bfti_tomb *tomb = &old->tomb[i];
        bft_slice from = bfti_tomb_low(old, tomb);
        bft_slice to = bfti_tomb_high(old, tomb);
        uint64_t stamp = stamp_kept(old, tomb);
        if (!is_below(from, high) || !is_below(low, to)) {
            fits = add(fresh, tomb->born, stamp, from, to);
            continue;
        }
        if (bfti_key_compare(from, low) < 0)
            fits = add(fresh, tomb->born, stamp, from, low);
        if (fits && high.len && is_below(high, to))
            fits = add(fresh, tomb->born, stamp, high, to);
    }
    return fits;
}

struct bfti_tombs *bfti_tombs_with(struct bfti_engine *engine,
                                   const struct bfti_tombs *old, bft_slice low,
                                   bft_slice high, uint64_t born,
                                   uint64_t stamp)
{
    size_t count = old ? old->count : 0;
    /* At most one gap before each piece, with two keys of others, and one more. */
    struct bfti_tombs *fresh =
        bfti_tombs_make(engine, 2 * count + 1,
                        2 * (old ? old->used : 0) + 2 * (low.len + high.len));
    bool fits = fresh != NULL, open = true;
    for (size_t i = 0; fits && i < count; i++) {
        const struct bfti_tomb *tomb = &old->tomb[i];
        bft_slice from = bfti_tomb_low(old, tomb);
        bft_slice to = bfti_tomb_high(old, tomb);
        bool inside = open && is_below(low, to) && is_below(from, high);
        /* LOW..HIGH is what is still to be filled. */
        if (inside && bfti_key_compare(low, from) < 0)
            fits = add(fresh, born, stamp, low, from);
        else if (open && !is_below(from, high)) {
            fits = add(fresh, born, stamp, low, high);
            open = false;
        }
        if (inside) {
            open = to.len && is_below(to, high);
            low = to;
        }
        fits = fits && add(fresh, tomb->born, stamp_kept(old, tomb), from, to);
    }
    if (fits && open)
        fits = add(fresh, born, stamp, low, high);
    assert(fits || !fresh);
    return fresh;
}

void bfti_tombs_put(struct bfti_tree *tree, struct bfti_tombs *fresh)
{
    struct bfti_engine *engine = tree->engine;
    struct bfti_tombs *old = atomic_load(&tree->tombs);
    if (fresh && fresh->count == 0) {
        bfti_free(engine->heap, fresh);
        fresh = NULL;
    }
    if (fresh)
        atomic_store(&engine->tombs, true);
    atomic_store(&tree->tombs_bytes, fresh ? fresh->used : 0);
    atomic_store(&tree->tombs_count, fresh ? fresh->count : 0);
    atomic_store(&tree->tombs, fresh); /* [tomb] */
    if (old)
        bfti_defer_free(engine->buffer.threads, &old->deferred, old, old->size);
}

void bfti_tombs_show(struct bfti_tree *tree, uint64_t number)
{
    atomic_store(&tree->tombs_word, /* [tomb] */
                 number << 1 | (atomic_load(&tree->tombs) != NULL));
}

void bfti_tombs_free(struct bfti_tree *tree)
{
    bfti_free(tree->engine->heap, atomic_load(&tree->tombs));
    bfti_free(tree->engine->env, tree->tombs_image);
}

static size_t stored_bytes(size_t count, size_t bytes)
{
    return count * 2 * sizeof(le16) + bytes;
}

size_t bfti_tombs_bytes(struct bfti_engine *engine)
{
    size_t bytes = 0;
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        if (bfti_tree_root(t) && atomic_load(&t->tombs_count))
            bytes += sizeof(le32) + stored_bytes(atomic_load(&t->tombs_count),
                                                 atomic_load(&t->tombs_bytes));
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
    return bytes;
}

/* Is that LIMIT, or a SHARE of what the catalogue has for them? */
static bool is_over(struct bfti_engine *engine, size_t limit, size_t share)
{
    size_t rest = bfti_catalogue_rest(engine) / share;
    return bfti_tombs_bytes(engine) >= (rest < limit ? rest : limit);
}

bool bfti_tombs_full(struct bfti_engine *engine)
{
    return is_over(engine, FULL_BYTES, FULL_SHARE);
}

bool bfti_tombs_crowded(struct bfti_tree *tree)
{
    return atomic_load(&tree->tombs_count) >= CROWD ||
           is_over(tree->engine, CROWD_BYTES, CROWD_SHARE);
}

/* --- asking ---------------------------------------------------------------- */

const struct bfti_tomb *bfti_tombs_find(const struct bfti_tombs *tombs,
                                        bft_slice key)
{
    size_t low = 0, high = tombs ? tombs->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct bfti_tomb *tomb = &tombs->tomb[middle];
        if (is_below(key, bfti_tomb_high(tombs, tomb)))
            high = middle;
        else
            low = middle + 1;
    }
    return tombs && low < tombs->count &&
                   bfti_key_compare(bfti_tomb_low(tombs, &tombs->tomb[low]),
                                    key) <= 0
               ? &tombs->tomb[low]
               : NULL;
}

uint64_t bfti_tomb_stamp(const struct bfti_tombs *tombs,
                         const struct bfti_tomb *tomb)
{
    uint64_t stamp = tomb->stamp ? tomb->stamp : atomic_load(&tombs->stamp);
    assert(stamp);
    return stamp;
}

/* Does TOMB hide what it lies over from NUMBER, for who read WORD? */
static bool hides(const struct bfti_tombs *tombs, const struct bfti_tomb *tomb,
                  uint64_t word, uint64_t number)
{
    return tomb && tomb->born <= word >> 1 &&
           bfti_tomb_stamp(tombs, tomb) <= number;
}

bool bfti_tomb_over(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key,
                    uint64_t number)
{
    uint64_t word = atomic_load(&tree->tombs_word); /* [tomb] */
    struct bfti_tombs *tombs;
    bool over;
    bfti_read_begin(rec);
    tombs = atomic_load(&tree->tombs);
    /* Of a tree that was dropped the leaves are to tell. */
    over = bfti_tree_root(tree) &&
           hides(tombs, bfti_tombs_find(tombs, key), word, number);
    bfti_read_end(rec);
    return over;
}

bool bfti_tomb_on(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key)
{
    bool on;
    bfti_read_begin(rec);
    on = bfti_tombs_find(atomic_load(&tree->tombs), key) != NULL;
    bfti_read_end(rec);
    return on;
}

bool bfti_tomb_coming(struct bfti_tree *tree, struct bfti_rec *rec,
                      bft_slice low, bft_slice high)
{
    uint64_t word = atomic_load(&tree->tombs_word); /* [tomb] */
    const struct bfti_tombs *tombs;
    bool coming = false;
    bfti_read_begin(rec);
    tombs = atomic_load(&tree->tombs); /* [tomb] */
    for (size_t i = 0; tombs && !coming && i < tombs->count; i++) {
        const struct bfti_tomb *tomb = &tombs->tomb[i];
        coming = tomb->born > word >> 1 &&
                 is_below(low, bfti_tomb_high(tombs, tomb)) &&
                 is_below(bfti_tomb_low(tombs, tomb), high);
    }
    bfti_read_end(rec);
    return coming;
}

/* --- copies ---------------------------------------------------------------- */

/* Leave out of COPY what TOMBS hide. */
static void copy_hide(struct bfti_copy *copy, const struct bfti_tombs *tombs,
                      uint64_t word, uint64_t number)
{
    size_t kept = 0;
    for (size_t i = 0; i < copy->count; i++) {
        const struct bfti_tomb *tomb =
            bfti_tombs_find(tombs, bfti_copy_key(copy, i));
        if (!hides(tombs, tomb, word, number))
            copy->record[kept++] = copy->record[i];
    }
    copy->count = kept;
}

/* One round.  *DONE false: another thread deleted a range meanwhile, or cleared a
 * part of one. */
static bft_status copy_once(struct bfti_copy *copy, struct bfti_tree *tree,
                            struct bfti_rec *rec,
                            const struct bfti_copy_wish *wish, uint64_t number,
                            bool *done)
{
    uint64_t word = atomic_load(&tree->tombs_word); /* [tomb] */
    struct bfti_tombs *tombs = atomic_load(&tree->tombs);
    struct bfti_copy_wish keys = *wish;
    bft_status status;
    if ((word & 1) && wish->only == BFTI_COPY_COUNT)
        keys.only = BFTI_COPY_KEYS;
    status = bfti_copy_take(copy, tree, rec, &keys);
    *done = true;
    if (status != BFT_OK)
        return status;
    PARK("tomb:copied");
    copy->tombs = &tree->tombs_word;
    copy->tombs_word = word;
    if (!(word & 1)) {
        *done = atomic_load(&tree->tombs_word) == word;
        return BFT_OK;
    }
    bfti_read_begin(rec);
    /* As long as both are the same nothing was cleared, and so nothing written
     * over it; and from here on the set is not freed. */
    *done = atomic_load(&tree->tombs) == tombs &&
            atomic_load(&tree->tombs_word) == word;
    if (*done && tombs)
        copy_hide(copy, tombs, word, number);
    bfti_read_end(rec);
    return BFT_OK;
}

bft_status bfti_copy_shown(struct bfti_copy *copy, struct bfti_tree *tree,
                           struct bfti_rec *rec,
                           const struct bfti_copy_wish *wish, uint64_t number)
{
    bft_status status;
    bool done;
    unsigned rounds = 0;
    /* Ends: who clears gives way to those who were overtaken often. */
    do {
        if (rounds++ == PATIENCE)
            atomic_fetch_add(&tree->tombs_haste, 1);
        status = copy_once(copy, tree, rec, wish, number, &done);
    } while (status == BFT_OK && !done);
    if (rounds > PATIENCE)
        atomic_fetch_sub(&tree->tombs_haste, 1);
    return status;
}

/* --- transactions ---------------------------------------------------------- */

/* The first piece that goes on behind LOW and begins below HIGH, hidden from the
 * newest and not from NUMBER: its part of that to LOW and TO. */
static bool next_changed(struct bfti_tree *tree, struct bfti_rec *rec,
                         struct bfti_bound *low, bft_slice high,
                         uint64_t number, struct bfti_bound *to)
{
    uint64_t word = atomic_load(&tree->tombs_word); /* [tomb] */
    struct bfti_tombs *tombs;
    bool found = false;
    bfti_read_begin(rec);
    tombs = atomic_load(&tree->tombs);
    for (size_t i = 0; tombs && !found && i < tombs->count; i++) {
        const struct bfti_tomb *tomb = &tombs->tomb[i];
        bft_slice from = bfti_tomb_low(tombs, tomb);
        bft_slice end = bfti_tomb_high(tombs, tomb);
        if (!is_below(bfti_bound_key(low), end) || !is_below(from, high) ||
            !hides(tombs, tomb, word, UINT64_MAX) ||
            bfti_tomb_stamp(tombs, tomb) <= number)
            continue;
        found = true;
        if (bfti_key_compare(bfti_bound_key(low), from) < 0)
            bfti_bound_set(low, from);
        bfti_bound_set(to, end.len && is_below(end, high) ? end : high);
    }
    bfti_read_end(rec);
    return found;
}

bft_status bfti_tomb_changed(struct bfti_tree *tree, struct bfti_rec *rec,
                             bft_slice low, bft_slice high, uint64_t number,
                             uint64_t now, bool *changed)
{
    struct bfti_copy copy = {.env = tree->engine->env};
    struct bfti_bound at, to;
    struct bfti_copy_wish wish = {
        .only = BFTI_COPY_COUNT, .window = 1, .now = now};
    bft_status status = BFT_OK;
    *changed = false;
    if (!bfti_tombs_alive(tree))
        return BFT_OK;
    bfti_bound_set(&at, low);
    /* Ends: AT rises with each round. */
    while (status == BFT_OK && !*changed &&
           next_changed(tree, rec, &at, high, number, &to)) {
        wish.key = bfti_bound_key(&at);
        wish.high = bfti_bound_key(&to);
        status = bfti_copy_take(&copy, tree, rec, &wish);
        *changed = status == BFT_OK && copy.count > 0;
        at = copy.high;
        if (at.len == 0 || !is_below(bfti_bound_key(&at), high))
            break;
    }
    bfti_copy_free(&copy);
    return status;
}

/* --- the catalogue, and recovery -------------------------------------------- */

static uint8_t *store_key(uint8_t *to, bft_slice key)
{
    le16 len = le16_of((uint16_t)key.len);
    memcpy(to, &len, sizeof(len));
    if (key.len)
        memcpy(to + sizeof(len), key.data, key.len);
    return to + sizeof(len) + key.len;
}

/* The pieces that are there, as bytes, in a block of the engine's ENV; NULL: none. */
static bft_status store(struct bfti_tree *tree, struct bfti_rec *rec,
                        uint8_t **bytes, size_t *len)
{
    *bytes = NULL;
    *len = 0;
    /* Ends: a round is repeated only when the set has grown. */
    for (size_t room = 0;;) {
        uint64_t word = atomic_load(&tree->tombs_word); /* [tomb] */
        const struct bfti_tombs *tombs;
        size_t most;
        uint8_t *to = *bytes;
        bfti_read_begin(rec);
        tombs = atomic_load(&tree->tombs);
        most = tombs ? stored_bytes(tombs->count, tombs->used) : 0;
        for (size_t i = 0; tombs && to && most <= room && i < tombs->count;
             i++) {
            const struct bfti_tomb *tomb = &tombs->tomb[i];
            /* Of one that is about to be the log will tell. */
            if (tomb->born > word >> 1)
                continue;
            to = store_key(to, bfti_tomb_low(tombs, tomb));
            to = store_key(to, bfti_tomb_high(tombs, tomb));
        }
        bfti_read_end(rec);
        if (most <= room) {
            *len = room ? (size_t)(to - *bytes) : 0;
            return BFT_OK;
        }
        bfti_free(tree->engine->env, *bytes);
        *bytes = bfti_alloc(tree->engine->env, room = most);
        if (!*bytes)
            return bfti_fail(BFT_NO_MEMORY, "no memory for the catalogue");
    }
}

static bool stored_key(const uint8_t **at, const uint8_t *end, bft_slice *key)
{
    le16 len;
    if ((size_t)(end - *at) < sizeof(len))
        return false;
    memcpy(&len, *at, sizeof(len));
    *key = (bft_slice){*at + sizeof(len), le16_get(len)};
    *at += sizeof(len);
    if ((size_t)(end - *at) < key->len || key->len > BFTI_KEY_MAX)
        return false;
    *at += key->len;
    return true;
}

bool bfti_tombs_next(const uint8_t **at, const uint8_t *end, bft_slice *low,
                     bft_slice *high)
{
    return *at < end && stored_key(at, end, low) && stored_key(at, end, high) &&
           is_below(*low, *high);
}

bft_status bfti_tombs_take(struct bfti_engine *engine, struct bfti_rec *rec,
                           bool *any)
{
    bft_status status = BFT_OK;
    *any = false;
    for (struct bfti_tree *t = engine->trees; status == BFT_OK && t;
         t = t->next) {
        bfti_free(engine->env, t->tombs_image);
        t->tombs_image = NULL;
        t->tombs_image_len = 0;
        if (bfti_tree_root(t))
            status = store(t, rec, &t->tombs_image, &t->tombs_image_len);
        *any = *any || t->tombs_image_len > 0;
    }
    return status;
}

/* Nobody else is there; all snapshots will come behind it. */
static bft_status redone(struct bfti_tree *tree, struct bfti_tombs *fresh)
{
    uint64_t number = (atomic_load(&tree->tombs_word) >> 1) + 1;
    if (!fresh)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a range of tree %s",
                         tree->name);
    bfti_tombs_put(tree, fresh);
    bfti_tombs_show(tree, number);
    return BFT_OK;
}

bft_status bfti_tomb_redo(struct bfti_tree *tree, bft_slice low, bft_slice high)
{
    uint64_t number = (atomic_load(&tree->tombs_word) >> 1) + 1;
    if (!is_below(low, high))
        return BFT_OK;
    return redone(tree, bfti_tombs_with(tree->engine, atomic_load(&tree->tombs),
                                        low, high, number, 1));
}

bft_status bfti_tomb_redo_clear(struct bfti_tree *tree, bft_slice low,
                                bft_slice high)
{
    const struct bfti_tombs *old = atomic_load(&tree->tombs);
    struct bfti_tombs *fresh;
    if (!old)
        return BFT_OK;
    fresh = bfti_tombs_make(tree->engine, old->count + 1,
                            old->used + low.len + high.len);
    if (fresh)
        (void)bfti_tombs_without(fresh, old, low, high);
    return redone(tree, fresh);
}

bft_status bfti_tombs_load(struct bfti_tree *tree,
                           const struct bfti_catalogue_entry *entry)
{
    const uint8_t *at = entry->tombs, *end = at + entry->tombs_len;
    bft_status status = BFT_OK;
    bft_slice low, high;
    while (status == BFT_OK && at < end)
        status = bfti_tombs_next(&at, end, &low, &high)
                     ? bfti_tomb_redo(tree, low, high)
                     : bfti_fail(BFT_CORRUPT,
                                 "%s: the catalogue's ranges of tree %s are "
                                 "malformed",
                                 tree->engine->path, tree->name);
    return status;
}
