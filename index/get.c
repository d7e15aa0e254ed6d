/*
 * The public calls that read records by key: one, a part of one, many.
 */
#include "expiry.h"
#include "tomb.h"

#include <stdlib.h>

/* --- memory for the caller ------------------------------------------------ */

/* Stands before each block, so that bft_free() knows where it came from. */
struct given {
    _Alignas(16) const struct bfti_env *env;
};

void *bfti_give(const struct bfti_env *env, size_t bytes)
{
    struct given *given;
    if (bytes > SIZE_MAX - sizeof(*given))
        return NULL;
    given = bfti_alloc(env, sizeof(*given) + bytes);
    if (!given)
        return NULL;
    given->env = env;
    return given + 1;
}

void bft_free(void *memory)
{
    struct given *given = memory;
    if (given)
        bfti_free(given[-1].env, given - 1);
}

/* --- one key --------------------------------------------------------------- */

static uint64_t view_bytes(const struct bfti_view *view)
{
    struct bfti_large large;
    if (!(view->flags & BFTI_REC_LARGE))
        return view->value_len;
    memcpy(&large, view->value, sizeof(large));
    return bfti_large_bytes(&large);
}

/* The part of a value of BYTES that TAKE wants; may allocate. */
static bft_status take_room(struct bfti_take *take, uint64_t bytes, size_t *len)
{
    *len = 0;
    if (take->range) {
        if (take->offset < bytes) {
            uint64_t rest = bytes - take->offset;
            *len = rest < take->buf_len ? (size_t)rest : take->buf_len;
        }
        take->value_len = *len;
        return BFT_OK;
    }
    take->value_len = (size_t)bytes;
    *len = (size_t)bytes;
    if (take->allocate) {
        bft_free(take->buf);
        take->buf = bfti_give(take->env, *len);
        if (take->buf)
            return BFT_OK;
        take->value_len = 0;
        return bfti_fail(BFT_NO_MEMORY, "no memory for a value of %zu bytes",
                         *len);
    }
    if (bytes <= take->buf_len)
        return BFT_OK;
    return BFT_TOO_SMALL;
}

static bft_status take_value(struct bfti_reader *reader, bft_slice key,
                             const struct bfti_view *view,
                             struct bfti_take *take, bool *stable)
{
    uint64_t bytes = view_bytes(view), stamp = take->now ? BFTI_STAMP : 0;
    size_t len;
    bft_status status;
    *stable = true;
    if (bytes < stamp)
        return bfti_reader_blame(reader, bfti_fail(BFT_CORRUPT,
                                                   "%s: a value has no stamp",
                                                   reader->tree->engine->path));
    status = take_room(take, bytes - stamp, &len);
    if (status != BFT_OK || len == 0)
        return status;
    if (view->flags & BFTI_REC_LARGE)
        return bfti_large_read(reader, key, view, take->offset + stamp,
                               take->buf, len, stable);
    memcpy(take->buf, view->value + take->offset + stamp, len);
    return BFT_OK;
}

bft_status bfti_take_slice(struct bfti_take *take, bft_slice value)
{
    size_t len;
    bft_status status;
    if (take->now)
        value = bfti_payload(value);
    status = take_room(take, value.len, &len);
    if (status == BFT_OK && len)
        memcpy(take->buf, (const uint8_t *)value.data + take->offset, len);
    return status;
}

bft_status bfti_value_read(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_slice key, struct bfti_take *take, bool *found)
{
    struct bfti_reader reader;
    struct bfti_view view;
    struct bfti_large large;
    bool stable = false, there = false;
    bft_status status = BFT_OK;
    /* Ends: a round is repeated only when the value changed meanwhile. */
    while (!stable) {
        status = bfti_leaf_find(&reader, tree, rec, key, found, &view);
        if (status != BFT_OK)
            return status;
        stable = true;
        there = *found && !bfti_view_expired(&view, take->now);
        if (*found && (view.flags & BFTI_REC_LARGE)) {
            /* While its extents are read the leaf may be opened anew, and what
             * the view points to may go. */
            memcpy(&large, view.value, sizeof(large));
            view.value = (const uint8_t *)&large;
        }
        if (there)
            status = take_value(&reader, key, &view, take, &stable);
        if (stable && (status == BFT_OK || status == BFT_TOO_SMALL) &&
            reader.disk.count)
            bfti_leaf_promote(&reader, key, *found ? &view : NULL);
        bfti_reader_close(&reader);
        if (status != BFT_OK && status != BFT_TOO_SMALL)
            return status;
    }
    *found = there;
    return status;
}

bft_status bfti_take_end(const struct bfti_take *take, bft_status status,
                         bool found)
{
    if (status == BFT_OK && !found)
        return bfti_fail_plain(BFT_NOT_FOUND,
                               "the tree has no record with that key");
    if (status == BFT_TOO_SMALL)
        return bfti_fail(BFT_TOO_SMALL,
                         "the value has %zu bytes, the buffer %zu",
                         take->value_len, take->buf_len);
    return status;
}

static bft_status get(bft_tree *handle, bft_slice key, struct bfti_take *take)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    bool found;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    take->env = engine->env;
    bfti_count(rec, BFTI_N_GETS, 1);
    do { /* ends: a round is repeated only after a truncation */
        tree = bfti_handle_tree(handle);
        take->now = bfti_tree_now(tree);
        found = false;
        status = bfti_tomb_hides(tree, rec, key, BFTI_TOMB_NEWEST)
                     ? BFT_OK
                     : bfti_value_read(tree, rec, key, take, &found);
    } while (bfti_handle_moved(handle, tree, status));
    return bfti_take_end(take, status, found);
}

bft_status bft_get(bft_tree *tree, bft_slice key, void *buf, size_t buf_len,
                   size_t *value_len)
{
    struct bfti_take take = {.buf = buf, .buf_len = buf_len};
    bft_status status;
    if (value_len)
        *value_len = 0;
    if (!value_len || (!buf && buf_len))
        return bfti_fail(BFT_INVALID, "bft_get: an output is NULL");
    status = get(tree, key, &take);
    if (status == BFT_OK || status == BFT_TOO_SMALL)
        *value_len = take.value_len;
    return status;
}

bft_status bft_get_copy(bft_tree *tree, bft_slice key, void **value,
                        size_t *value_len)
{
    struct bfti_take take = {.allocate = true};
    bft_status status;
    if (value)
        *value = NULL;
    if (value_len)
        *value_len = 0;
    if (!value || !value_len)
        return bfti_fail(BFT_INVALID, "bft_get_copy: an output is NULL");
    status = get(tree, key, &take);
    if (status != BFT_OK) {
        bft_free(take.buf);
        return status;
    }
    *value = take.buf;
    *value_len = take.value_len;
    return BFT_OK;
}

bft_status bft_get_range(bft_tree *tree, bft_slice key, uint64_t offset,
                         void *buf, size_t len, size_t *got)
{
    struct bfti_take take = {
        .buf = buf, .buf_len = len, .offset = offset, .range = true};
    bft_status status;
    if (got)
        *got = 0;
    if (!got || (!buf && len))
        return bfti_fail(BFT_INVALID, "bft_get_range: an output is NULL");
    status = get(tree, key, &take);
    if (status == BFT_OK)
        *got = take.value_len;
    return status;
}

/* --- many keys ----------------------------------------------------------- */

enum {
    AHEAD = 16,            /* leaves that are fetched from memory at a time */
    FETCHED = BFTI_AHEAD,  /* and from disk */
    FURTHER = 2 * FETCHED, /* keys whose leaves are looked for at a time */
    FEW = 64,              /* keys that need no list of their own */
};

static int by_key(const void *a, const void *b)
{
    const bft_answer *x = *(bft_answer *const *)a;
    const bft_answer *y = *(bft_answer *const *)b;
    return bfti_key_compare(x->key, y->key);
}

/* What can be told of an item before any leaf is looked at. */
static bft_status check_item(const bft_answer *item)
{
    if (!item->buf && item->buf_len)
        return bfti_fail(BFT_INVALID, "bft_multi_get: a buffer is NULL");
    return bfti_check_key(item->key);
}

/* ITEM's answer from what was found in the leaf that R has open.  *STABLE false:
 * it is not answered. */
static bft_status give(struct bfti_reader *r, bft_answer *item, bool found,
                       const struct bfti_view *view, bool *stable)
{
    struct bfti_take take = {.buf = item->buf,
                             .buf_len = item->buf_len,
                             .now = bfti_tree_now(r->tree)};
    bool there = found && !bfti_view_expired(view, take.now);
    bft_status status = BFT_OK;
    if (there)
        status = take_value(r, item->key, view, &take, stable);
    if (!*stable || (status != BFT_OK && status != BFT_TOO_SMALL))
        return status;
    if (r->disk.count)
        bfti_leaf_promote(r, item->key, found ? view : NULL);
    item->value_len = take.value_len;
    return there ? status : BFT_NOT_FOUND;
}

/* Answer ITEM from the leaf that R has open.  *STABLE false: not answered. */
static bft_status answer(struct bfti_reader *r, bft_answer *item, bool *stable)
{
    struct bfti_view view;
    struct bfti_large large;
    bool found;
    bft_status status;
    if (bfti_tomb_hides(r->tree, r->rec, item->key, BFTI_TOMB_NEWEST))
        return BFT_NOT_FOUND;
    /* [tomb] Only the leaf as it is from here on has what was cleared of a range
     * that is not asked for any more.  And ranges of a tree whose root is gone are
     * not asked for, but its leaves may be here still. */
    *stable = bfti_reader_still(r) && bfti_tree_root(r->tree);
    if (!*stable)
        return BFT_OK;
    status = bfti_reader_find(r, item->key, &found, &view, stable);
    if (status != BFT_OK || !*stable)
        return status;
    if (found && (view.flags & BFTI_REC_LARGE)) {
        /* As in get(). */
        memcpy(&large, view.value, sizeof(large));
        view.value = (const uint8_t *)&large;
    }
    return give(r, item, found, &view, stable);
}

/* Answer ITEM from memory if its leaf, ID, can. */
static bool answer_cached(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_answer *item, uint64_t id)
{
    struct bfti_reader r;
    struct bfti_view view;
    bool found, stable = true, done;
    if (bfti_tombs_alive(tree)) /* answer_leaf() asks them */
        return false;
    if (!bfti_reader_open_cached(&r, tree, rec, item->key, id))
        return false;
    done = bfti_reader_find_cached(&r, item->key, &found, &view) &&
           !(found && (view.flags & BFTI_REC_LARGE));
    if (done)
        item->status = give(&r, item, found, &view, &stable);
    bfti_reader_close(&r);
    return done;
}

/* Answer those of N items, at most AHEAD, that memory can, and move the others to
 * the front; returns how many these are.  Leaves are found for all before the
 * first is searched: what one waits for, memory brings for the others too. */
static size_t answer_ahead(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_answer **items, size_t n)
{
    bft_slice keys[AHEAD];
    uint64_t ids[AHEAD];
    uint64_t structure = atomic_load(&tree->structure); /* [structure] */
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        keys[i] = items[i]->key;
    if (!bfti_leaf_look_ahead(tree, rec, keys, n, ids))
        return n;
    for (size_t i = 0; i < n; i++) {
        if (answer_cached(tree, rec, items[i], ids[i]))
            continue;
        if (bfti_leaf_lacks(tree, rec, keys[i], ids[i], structure))
            items[i]->status = BFT_NOT_FOUND;
        else
            items[left++] = items[i];
    }
    return left;
}

/* Answer the first of N items, and those after it that fall into the same leaf;
 * returns how many.  What is beneath the pages is read once for all of them. */
static size_t answer_leaf(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_answer **items, size_t n)
{
    struct bfti_reader r;
    size_t done = 0;
    bool stable = true;
    bft_status status = bfti_reader_open(&r, tree, rec, items[0]->key, false);
    if (status != BFT_OK) {
        items[0]->status = status;
        return 1;
    }
    while (done < n && (done == 0 || bfti_run_range(bfti_reader_run(&r),
                                                    items[done]->key) == 0)) {
        status = answer(&r, items[done], &stable);
        if (!stable)
            break;
        items[done++]->status = status;
        if (status != BFT_OK && status != BFT_NOT_FOUND &&
            status != BFT_TOO_SMALL)
            break; /* R may not be open any more */
    }
    bfti_reader_close(&r);
    return done;
}

/* List the items that may be looked for; returns how many. */
static size_t list_items(bft_answer *items, size_t n, bft_answer **listed)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        items[i].value_len = 0;
        items[i].status = check_item(&items[i]);
        if (items[i].status == BFT_OK)
            listed[kept++] = &items[i];
    }
    return kept;
}

/* Have the leaves of the first of N items read together, or announce them;
 * returns of how many items. */
static size_t look_further(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_answer **items, size_t n)
{
    bft_slice keys[FURTHER];
    uint64_t ids[FURTHER];
    size_t first[FURTHER]; /* item of each leaf */
    size_t leaves = 0, fetched, i;
    if (n > FURTHER)
        n = FURTHER;
    for (i = 0; i < n; i++)
        keys[i] = items[i]->key;
    if (!bfti_leaf_look_ahead(tree, rec, keys, n, ids))
        return n;
    /* Their keys rise: those of one leaf are side by side. */
    for (i = 0; i < n; i++)
        if (ids[i] != BFTI_PAGE_ID_NONE &&
            (leaves == 0 || ids[leaves - 1] != ids[i])) {
            first[leaves] = i;
            ids[leaves++] = ids[i];
        }
    fetched = leaves > 1 ? bfti_leaf_fetch(tree->engine, rec, items, ids,
                                           leaves < FETCHED ? leaves : FETCHED)
                         : 0;
    /* The others come while these are gone through. */
    bfti_leaf_announce(tree->engine, rec, ids + fetched, leaves - fetched);
    return fetched && fetched < leaves ? first[fetched] : n;
}

/* Answer N items that memory could not, in the order of their keys: each leaf is
 * read once. */
static void answer_sorted(bft_tree *handle, struct bfti_rec *rec,
                          bft_answer **items, size_t n)
{
    size_t further = 0;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    qsort(items, n, sizeof(*items), by_key);
    /* Ends: a round that answers nothing follows a change by another thread. */
    for (size_t i = 0; i < n;) {
        struct bfti_tree *tree = bfti_handle_tree(handle);
        if (rec->awaited && i >= further)
            further = i + look_further(tree, rec, items + i, n - i);
        i += answer_leaf(tree, rec, items + i, n - i);
        if (i && bfti_handle_moved(handle, tree, items[i - 1]->status))
            i--;
    }
    bfti_ahead_drop(rec, items);
}

bft_status bft_multi_get(bft_tree *handle, bft_answer *items, size_t count)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_answer *few[FEW], **listed = few;
    size_t n, left = 0;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (status != BFT_OK || count == 0)
        return status;
    if (!items)
        return bfti_fail(BFT_INVALID, "bft_multi_get: ITEMS is NULL");
    if (count > FEW)
        listed = count <= SIZE_MAX / sizeof(*items)
                     ? bfti_alloc(engine->env, count * sizeof(bft_answer *))
                     : NULL;
    if (!listed)
        return bfti_fail(BFT_NO_MEMORY, "no memory for %zu keys", count);
    n = list_items(items, count, listed);
    bfti_count(rec, BFTI_N_GETS, n);
    for (size_t i = 0; i < n; i += AHEAD) {
        size_t group = n - i < AHEAD ? n - i : AHEAD, behind;
        behind = answer_ahead(bfti_handle_tree(handle), rec, listed + i, group);
        memmove(listed + left, listed + i, behind * sizeof(bft_answer *));
        left += behind;
    }
    answer_sorted(handle, rec, listed, left);
    if (listed != few)
        /* NOLINTNEXTLINE(bugprone-multi-level-implicit-pointer-conversion) */
        bfti_free(engine->env, listed);
    for (size_t i = 0; i < count && status == BFT_OK; i++)
        if (items[i].status != BFT_NOT_FOUND &&
            items[i].status != BFT_TOO_SMALL)
            status = items[i].status;
    return status;
}
