/*
 * Verify: walk every tree by its inner nodes and compare what they say with what
 * is in the leaves, in memory and on disk; then compare the space in use with
 * what the walk has met.
 *
 * Writers go on meanwhile.  What looks wrong is looked at again under the leaf's
 * latch, where it must be right; the sum of all, leaked space, is judged only
 * when nothing changed during the walk.  No extent that the walk has met is
 * reused before its end: that takes the lock of checkpoints, which we hold.
 */
#include "catalogue.h"

#include <stdio.h>

enum {
    VERIFY_ROUNDS = 3,  /* walks until one was not disturbed */
    LEAF_TRIES = 10000, /* looks at a leaf that changes all the time */
};

struct fence {
    size_t len;
    uint8_t bytes[BFTI_KEY_MAX];
};

struct verify {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    bool disturbed; /* a part of the tree was, or may have been, met twice */
    bool busy;      /* a leaf was latched: its writer may have linked extents
                       that nothing leads to yet */
    struct bfti_places places; /* of a leaf */
    struct bfti_places parts;  /* of a large value */
    /* The leaf that is looked at, as the tree has it. */
    uint64_t id;
    struct fence low, high;
    uint64_t place;   /* the newest extent of it, 0 none */
    uint64_t sibling; /* as found in it */
    uint32_t seq;     /* of its latch, from before that */
    /* Its left neighbour; id 0: unknown. */
    uint64_t left_id, left_sibling;
    uint32_t left_seq;
};

static bft_slice fence_key(const struct fence *fence)
{
    bft_slice key = {fence->bytes, fence->len};
    return key;
}

/* Say which leaf it was. */
static bft_status blame(const struct verify *v, bft_status status)
{
    return bfti_fail_in(status, "page %llu of tree %s",
                        (unsigned long long)v->id, v->tree->name);
}

static bft_status corrupt_at(const struct verify *v, uint64_t place,
                             const char *what)
{
    return blame(v, bfti_extent_wrong(v->engine->buffer.pf, place, what));
}

static bft_status corrupt(const struct verify *v, const char *what)
{
    /* What kept a change from the inner nodes was known before the leaf could be
     * looked at: they need not agree, and the file may be whole. */
    uint32_t failed = atomic_load(&v->engine->failed);
    if (failed)
        return bfti_fail((bft_status)(-(int)failed),
                         "page %llu of tree %s: %s, as an earlier failure may "
                         "have left it: close and reopen %s",
                         (unsigned long long)v->id, v->tree->name, what,
                         v->engine->path);
    if (v->place)
        return corrupt_at(v, v->place, what);
    return blame(v, bfti_fail(BFT_CORRUPT, "%s: %s", v->engine->path, what));
}

/* --- one run -------------------------------------------------------------- */

/* Is RUN of the leaf in hand?  It was checked by itself.  NULL: yes. */
static const char *run_of_leaf(const struct verify *v,
                               const struct bfti_run *run)
{
    if (le32_get(run->tree_id) != v->tree->id)
        return "it holds records of another tree";
    if (bfti_key_compare(bfti_run_low(run), fence_key(&v->low)) != 0)
        return "its low fence is not where the tree says it begins";
    if (bfti_key_compare(bfti_run_high(run), fence_key(&v->high)) != 0)
        return "its high fence is not where the tree says it ends";
    return NULL;
}

static const char *page_of_leaf(const struct verify *v,
                                const struct bfti_minipage *page)
{
    const struct bfti_run *run = bfti_minipage_run(page);
    unsigned tail = bfti_minipage_visible(page);
    unsigned sorted = bfti_minipage_sorted(page, tail);
    const char *wrong = bfti_run_check(run, le32_get(run->bytes));
    struct bfti_view last;
    if (!wrong && page->page_id != v->id)
        wrong = "a page in memory is of another leaf";
    if (!wrong)
        wrong = run_of_leaf(v, run);
    for (unsigned i = 0; !wrong && i < tail; i++) {
        struct bfti_view view = bfti_minipage_tail_view(page, i);
        bft_slice key = {view.suffix, view.suffix_len};
        if (bfti_run_range(run, key) != 0)
            wrong = "a key in a page's tail lies outside its fences";
        else if (i > 0 && i < sorted && bfti_view_compare(&last, &view) >= 0)
            wrong = "a page's tail is not in the order that it says";
        last = view;
    }
    return wrong;
}

/* --- records -------------------------------------------------------------- */

/* What lies on disk of the key of VIEW. */
static bool on_disk(const struct bfti_reader *r, const struct bfti_view *view,
                    struct bfti_view *found)
{
    uint8_t buf[BFTI_KEY_MAX];
    bft_slice key = {buf, bfti_view_key_len(view)};
    bfti_view_key(view, buf);
    for (unsigned i = 0; i < r->disk.count; i++) {
        bool hit;
        unsigned at = bfti_run_search(r->disk.run[i], key, &hit);
        if (!hit)
            continue;
        *found = bfti_run_view(r->disk.run[i], at);
        return bfti_op_has_value(found->op);
    }
    return false;
}

/* A clean record is what lies beneath. */
static const char *clean_record(const struct bfti_reader *r,
                                const struct bfti_view *view)
{
    struct bfti_view found;
    bool hit;
    if (bfti_op_is_dirty(view->op))
        return NULL;
    hit = on_disk(r, view, &found);
    if (view->op == BFTI_OP_ABSENT)
        return hit ? "a key is cached as absent, but it is there" : NULL;
    if (!hit)
        return "a record is cached, but it is not there";
    if (view->flags != found.flags || view->value_len != found.value_len ||
        memcmp(view->value, found.value, found.value_len) != 0)
        return "a cached record has another value than the leaf";
    return NULL;
}

/* Of several records of a key in the tail only the first may be clean, and then
 * it says what was beneath: each one is compared. */
static const char *clean_records(const struct bfti_reader *r,
                                 const struct bfti_minipage *page)
{
    const struct bfti_run *run = bfti_minipage_run(page);
    unsigned tail = bfti_minipage_visible(page);
    const char *wrong = NULL;
    for (unsigned i = 0; !wrong && i < bfti_run_count(run); i++) {
        struct bfti_view view = bfti_run_view(run, i);
        wrong = clean_record(r, &view);
    }
    for (unsigned i = 0; !wrong && i < tail; i++) {
        struct bfti_view view = bfti_minipage_tail_view(page, i);
        wrong = clean_record(r, &view);
    }
    return wrong;
}

/* Does PAGE say something of every key that RUN has and the leaf shows? */
static const char *all_in_page(const struct bfti_reader *r,
                               const struct bfti_minipage *page,
                               const struct bfti_run *run)
{
    for (unsigned i = 0; i < bfti_run_count(run); i++) {
        struct bfti_view view = bfti_run_view(run, i), found;
        uint8_t buf[BFTI_KEY_MAX];
        bft_slice key = {buf, bfti_view_key_len(&view)};
        bfti_view_key(&view, buf);
        if (on_disk(r, &view, &found) && !bfti_minipage_find(page, key, &found))
            return "a page in memory passes for complete and is not";
    }
    return NULL;
}

/* --- large values --------------------------------------------------------- */

/* Name PLACE, which the leaf refers to, and read it. */
static bft_status read_part(struct verify *v, struct bfti_reader *r,
                            uint64_t place, size_t *len, bool *stable)
{
    struct bfti_extent_info info;
    const void *raw;
    bft_status status;
    *len = 0;
    bfti_hazard_set(v->rec, BFTI_HAZARD_EXTENT, place);
    *stable = bfti_reader_still(r);
    if (!*stable)
        return BFT_OK;
    status = bfti_extent_read(v->engine->buffer.pf, place,
                              &v->rec->scratch[BFTI_SCRATCH_VALUE], &info, &raw,
                              len);
    if (status != BFT_OK)
        return blame(v, bfti_fail_in(status, "a value"));
    if (info.type != BFTI_EXTENT_VALUE)
        return corrupt_at(v, place, "it is no part of a value");
    if (info.tree_id != v->tree->id)
        return corrupt_at(v, place, "it is a value of another tree");
    return BFT_OK;
}

static bft_status check_large(struct verify *v, struct bfti_reader *r,
                              struct bfti_large large, bool *stable)
{
    uint64_t bytes = bfti_large_bytes(&large), total = 0;
    uint64_t place = le64_get(large.place);
    bool list = bfti_large_is_list(bytes);
    bft_status status;
    if (!atomic_load(&v->tree->has_large))
        return corrupt(v, "it has a large value, its tree has none");
    v->parts.count = 0;
    bfti_hazard_set(v->rec, BFTI_HAZARD_EXTENT, place);
    *stable = bfti_reader_still(r);
    if (!*stable)
        return BFT_OK;
    status = bfti_large_places(&v->engine->buffer, v->rec, large, &v->parts);
    if (status != BFT_OK)
        return blame(v, bfti_fail_in(status, "a value"));
    for (size_t i = list; i < v->parts.count; i++) {
        size_t len;
        status = read_part(v, r, v->parts.place[i], &len, stable);
        if (status != BFT_OK || !*stable)
            return status;
        total += len;
    }
    return total == bytes
               ? BFT_OK
               : corrupt_at(v, place, "a large value has another length");
}

static bft_status check_view(struct verify *v, struct bfti_reader *r,
                             const struct bfti_view *view, bool *stable)
{
    struct bfti_large large;
    if (!(view->flags & BFTI_REC_LARGE) || view->op != BFTI_OP_PUT)
        return BFT_OK; /* a cached reference is a copy of one beneath */
    memcpy(&large, view->value, sizeof(large));
    return check_large(v, r, large, stable);
}

static bft_status check_run_large(struct verify *v, struct bfti_reader *r,
                                  const struct bfti_run *run, bool *stable)
{
    bft_status status = BFT_OK;
    if (!(le16_get(run->flags) & BFTI_RUN_HAS_LARGE))
        return BFT_OK;
    for (unsigned i = 0; status == BFT_OK && *stable && i < bfti_run_count(run);
         i++) {
        struct bfti_view view = bfti_run_view(run, i);
        status = check_view(v, r, &view, stable);
    }
    return status;
}

static bft_status check_all_large(struct verify *v, struct bfti_reader *r,
                                  bool *stable)
{
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && *stable && i < r->disk.count; i++)
        status = check_run_large(v, r, r->disk.run[i], stable);
    for (unsigned i = 0; status == BFT_OK && *stable && i < r->pages; i++) {
        unsigned tail = bfti_minipage_visible(r->page[i]);
        status = check_run_large(v, r, bfti_minipage_run(r->page[i]), stable);
        for (unsigned t = 0; status == BFT_OK && *stable && t < tail; t++) {
            struct bfti_view view = bfti_minipage_tail_view(r->page[i], t);
            status = check_view(v, r, &view, stable);
        }
    }
    return status;
}

/* --- space ---------------------------------------------------------------- */

/* All of them or none: a leaf that changed is looked at again. */
static bft_status mark_leaf(struct verify *v, struct bfti_reader *r,
                            bool *stable)
{
    struct bfti_pagefile *pf = v->engine->buffer.pf;
    bft_status status;
    v->places.count = 0;
    status = bfti_leaf_extents(r, &v->places, stable);
    if (status != BFT_OK)
        return status;
    for (size_t i = 0; *stable && i < v->places.count; i++) {
        if (bfti_space_is_used(pf, v->places.place[i]))
            continue;
        *stable = bfti_reader_still(r);
        if (*stable)
            return corrupt_at(v, v->places.place[i],
                              "the extent is in a block that counts as free");
    }
    if (*stable)
        *stable = bfti_reader_still(r);
    for (size_t i = 0; *stable && i < v->places.count; i++)
        if (!bfti_space_audit_mark(pf, v->places.place[i]) && !v->disturbed)
            return corrupt_at(v, v->places.place[i],
                              "the extent is in a block that another has");
    return BFT_OK;
}

/* An extent of the image itself: nobody changes it while we hold the
 * checkpoint_lock. */
static bft_status read_meta(struct verify *v, uint64_t place,
                            enum bfti_extent_type type, const char *what)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    bft_status status = bfti_extent_read_as(
        v->engine->buffer.pf, place, type, &v->rec->scratch[BFTI_SCRATCH_VALUE],
        &info, &raw, &len);
    return status == BFT_OK ? BFT_OK : bfti_fail_in(status, "%s", what);
}

static bft_status mark_meta(struct verify *v, uint64_t place,
                            enum bfti_extent_type type, const char *what)
{
    struct bfti_pagefile *pf = v->engine->buffer.pf;
    const char *wrong = NULL;
    if (place == 0)
        return BFT_OK;
    if (!bfti_space_is_used(pf, place))
        wrong = "it is in a block that counts as free";
    else if (!bfti_space_audit_mark(pf, place) && !v->disturbed)
        wrong = "it is in a block that another extent has";
    if (wrong)
        return bfti_fail_in(bfti_extent_wrong(pf, place, wrong), "%s", what);
    return read_meta(v, place, type, what);
}

/* --- one leaf ------------------------------------------------------------- */

/* Which leaf has KEY, and what range does the tree give it?  No leaf: its node is
 * not in memory. */
static void find_leaf(struct verify *v, bft_slice key)
{
    struct bfti_inner *root;
    bfti_read_begin(v->rec);
    root = bfti_tree_root(v->tree); /* [root] not 0: a drop waits for us */
    v->id = bfti_inner_range(root, key, v->low.bytes, &v->low.len,
                             v->high.bytes, &v->high.len);
    bfti_read_end(v->rec);
}

/* WRONG was found in the leaf without its latch.  Whoever changes a leaf's range
 * holds the latch until the tree knows: if under it all is as it was, WRONG is
 * so.  Else *STABLE is false. */
static bft_status confirm(struct verify *v, struct bfti_reader *r,
                          bft_slice key, const char *wrong, bool *stable)
{
    uint64_t id = v->id;
    struct bfti_entry *entry = r->entry;
    struct fence low = v->low, high = v->high;
    bfti_latch(v->engine->env, entry);
    find_leaf(v, key);
    *stable = bfti_entry_word(entry) == r->word && bfti_reader_still(r) &&
              v->id == id &&
              bfti_key_compare(fence_key(&low), fence_key(&v->low)) == 0 &&
              bfti_key_compare(fence_key(&high), fence_key(&v->high)) == 0;
    bfti_unlatch(v->engine->env, entry, false);
    v->id = id;
    return *stable ? corrupt(v, wrong) : BFT_OK;
}

/* The leaf's word is no place: it is being absorbed, or the tree is wrong. */
static bft_status no_leaf(struct verify *v, struct bfti_reader *r,
                          bft_slice key, bool *stable)
{
    *stable = false;
    if (r->word) {
        /* The absorber holds the left one's latch until the tree knows. */
        struct bfti_entry *left;
        if (r->word >= bfti_table_ids(v->engine->buffer.table))
            return corrupt(v, "it forwards to a page that was never made");
        left = bfti_table_entry(v->engine->buffer.table, r->word);
        bfti_latch(v->engine->env, left);
        bfti_unlatch(v->engine->env, left, false);
        return BFT_OK;
    }
    return confirm(v, r, key, "the tree leads to it, but it is free", stable);
}

static const char *check_content(const struct verify *v,
                                 const struct bfti_reader *r)
{
    const struct bfti_minipage *last = r->pages ? r->page[r->pages - 1] : NULL;
    const char *wrong = NULL;
    for (unsigned i = 0; !wrong && i < r->pages; i++)
        wrong = page_of_leaf(v, r->page[i]);
    for (unsigned i = 0; !wrong && i < r->disk.count; i++)
        wrong = run_of_leaf(v, r->disk.run[i]);
    if (!wrong && last)
        wrong = clean_records(r, last);
    if (!last || !(last->flags & BFTI_PAGE_COMPLETE))
        return wrong;
    for (unsigned i = 0; !wrong && i < r->disk.count; i++)
        wrong = all_in_page(r, last, r->disk.run[i]);
    return wrong;
}

static bft_status look_at_leaf(struct verify *v, struct bfti_reader *r,
                               bft_slice key, bool *stable)
{
    const char *wrong;
    bft_status status;
    *stable = true;
    v->place = 0;
    if (bfti_place_tag(r->word) == BFTI_TAG_NONE)
        return no_leaf(v, r, key, stable);
    status = bfti_reader_disk(r, stable);
    if (status != BFT_OK || !*stable)
        return status;
    v->place = r->disk.count ? r->disk.place[0] : 0;
    wrong = check_content(v, r);
    if (wrong)
        return confirm(v, r, key, wrong, stable);
    status = check_all_large(v, r, stable);
    if (status != BFT_OK || !*stable)
        return status;
    v->sibling = bfti_run_sibling(bfti_reader_run(r));
    return mark_leaf(v, r, stable);
}

/* The leaf that has KEY; the one before it ended there. */
static bft_status verify_leaf(struct verify *v, bft_slice key)
{
    struct bfti_reader r;
    for (int i = 0; i < LEAF_TRIES; i++) {
        struct bfti_entry *entry;
        bool stable, still;
        bft_status status;
        find_leaf(v, key);
        if (v->id == BFTI_PAGE_ID_NONE) {
            status = bfti_node_load(v->tree, v->rec, key, false);
            if (status != BFT_OK)
                return status;
            i--; /* ends: as in bfti_node_load() */
            continue;
        }
        if (bfti_key_compare(fence_key(&v->low), key) != 0)
            v->disturbed = true; /* absorbed by one that we have met */
        entry = bfti_table_entry(v->engine->buffer.table, v->id);
        v->seq = atomic_load(&entry->seq); /* [seq] before what it counts */
        /* [latch] Free: what its holder linked is published. */
        if (atomic_load(&entry->latch))
            v->busy = true;
        bfti_reader_at(&r, v->tree, v->rec, v->id);
        status = look_at_leaf(v, &r, key, &stable);
        still = bfti_reader_still(&r);
        bfti_reader_close(&r);
        PARK("verify:leaf-met");
        /* A failure counts only if the leaf is what it was. */
        if (status == BFT_OK ? stable : still)
            return status;
        v->engine->env->yield(v->engine->env->ctx);
    }
    if (bfti_place_tag(r.word) == BFTI_TAG_NONE)
        return corrupt(v, "the tree leads to it, but it is no leaf");
    v->disturbed = true; /* it changes faster than it can be read */
    v->id = v->sibling = 0;
    return BFT_OK;
}

/* A leaf's neighbours know each other. */
static bft_status check_chain(struct verify *v)
{
    const struct bfti_entry *left;
    if (v->high.len == 0 && v->sibling)
        return corrupt(v, "the last leaf of the tree has a right neighbour");
    if (v->id == 0 || v->left_id == 0 || v->left_sibling == v->id)
        return BFT_OK;
    left = bfti_table_entry(v->engine->buffer.table, v->left_id);
    /* [latch], [seq] It may have split, or absorbed, since we met it: who did has
     * counted before he let go. */
    if (atomic_load(&left->latch) || atomic_load(&left->seq) != v->left_seq)
        return BFT_OK;
    return corrupt(v, "its left neighbour names another leaf");
}

static bft_status verify_leaves(struct verify *v)
{
    struct fence next;
    bft_status status;
    next.len = 0;
    v->left_id = 0;
    do {
        status = verify_leaf(v, fence_key(&next));
        if (status == BFT_OK)
            status = check_chain(v);
        next = v->high;
        v->left_id = v->id;
        v->left_seq = v->seq;
        v->left_sibling = v->sibling;
    } while (status == BFT_OK && next.len);
    return status;
}

/* --- inner nodes ---------------------------------------------------------- */

static bft_status inner_corrupt(const struct verify *v,
                                const struct bfti_inner *node, const char *what)
{
    uint64_t place = atomic_load(&node->place); /* 0: of none, or a copy */
    bft_status status =
        place > BFTI_NODE_RETIRED
            ? bfti_extent_wrong(v->engine->buffer.pf, place, what)
            : bfti_fail(BFT_CORRUPT, "%s: %s", v->engine->path, what);
    return bfti_fail_in(status, "an inner node of tree %s", v->tree->name);
}

/* The extent is the node's while it is in the tree. */
static bft_status mark_node(struct verify *v, struct bfti_inner *node)
{
    uint64_t place = atomic_load(&node->place); /* [node] */
    char what[BFTI_NAME_MAX + 32];
    bft_status status;
    if (place == 0 || place == BFTI_NODE_RETIRED)
        return BFT_OK;
    (void)snprintf(what, sizeof(what), "an inner node of tree %s",
                   v->tree->name);
    status = mark_meta(v, place, BFTI_EXTENT_INNER, what);
    return atomic_load(&node->place) == place ? status : BFT_OK;
}

static bft_status verify_node(struct verify *v, struct bfti_inner *node,
                              bft_slice low, bft_slice high);

/* The keys of NODE ascend, and lie between LOW and HIGH (len 0: no limit). */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status verify_children(struct verify *v,
                                  const struct bfti_inner *node, bft_slice low,
                                  bft_slice high)
{
    struct fence from, to;
    bft_status status = BFT_OK;
    from.len = 0;
    for (unsigned i = 0; status == BFT_OK && i < node->count; i++) {
        bft_slice left = i ? fence_key(&from) : low, right = high;
        if (i + 1 < node->count) {
            to.len = bfti_inner_key(node, i + 1, to.bytes);
            right = fence_key(&to);
            if (bfti_key_compare(left, right) >= 0 ||
                (high.len && bfti_key_compare(right, high) >= 0))
                return inner_corrupt(v, node, "its keys do not ascend");
        }
        if (node->height > 1) {
            struct bfti_inner *child = bfti_inner_child(node, i);
            if (child->height + 1 != node->height)
                return inner_corrupt(v, node, "a child has another height");
            status = verify_node(v, child, left, right);
        } else if (bfti_inner_page(node, i) == BFTI_PAGE_ID_NONE ||
                   bfti_inner_page(node, i) >=
                       bfti_table_ids(v->engine->buffer.table)) {
            return inner_corrupt(v, node,
                                 "it leads to a page that was never made");
        }
        from = to;
    }
    return status;
}

/* NODE, read for this alone if it is not in memory. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status verify_node(struct verify *v, struct bfti_inner *node,
                              bft_slice low, bft_slice high)
{
    const struct bfti_inner *at;
    struct bfti_inner *own = NULL;
    bft_status status;
    if (node->height == 0 || node->height > BFTI_INNER_HEIGHT_MAX)
        return inner_corrupt(v, node, "its height is out of range");
    status = mark_node(v, node);
    if (status == BFT_OK)
        status = bfti_node_borrow(v->tree, node, &at, &own);
    if (status != BFT_OK)
        return status;
    if (at)
        status = verify_children(v, at, low, high);
    else
        v->disturbed = true; /* the tree has left it */
    bfti_free(v->engine->heap, own);
    return status;
}

static bft_status verify_inner(struct verify *v)
{
    bft_slice none = {NULL, 0};
    struct bfti_hold hold;
    bft_status status;
    /* Nodes that the tree leaves meanwhile stay readable. */
    bfti_defer_hold(v->engine->buffer.threads, &hold);
    status = verify_node(v, bfti_tree_root(v->tree), none, none);
    bfti_defer_unhold(v->engine->buffer.threads, &hold);
    return status;
}

/* --- the whole ------------------------------------------------------------ */

/* Both are read when the database is opened.  Of one whose write has failed a part
 * may be there, until the next one. */
static bft_status verify_superblocks(struct verify *v)
{
    struct bfti_superblock slot[2];
    bft_status verdict[2];
    bft_status status =
        bfti_superblock_read(v->engine->buffer.pf, slot, verdict);
    for (unsigned i = 0; status == BFT_OK && i < 2; i++) {
        if (verdict[i] == BFT_IO)
            status = BFT_IO; /* the text says which */
        else if (verdict[i] != BFT_OK &&
                 (i == v->engine->superblock_slot ||
                  (verdict[i] != BFT_NOT_FOUND && !v->engine->superblock_cut)))
            status = bfti_fail(BFT_CORRUPT,
                               "%s/data: the superblock at byte %u cannot be "
                               "read",
                               v->engine->path, i * (unsigned)BFTI_BLOCK);
    }
    return status;
}

static bft_status verify_lists(struct verify *v)
{
    bft_status status = BFT_OK;
    uint64_t place;
    for (size_t i = 0; status == BFT_OK &&
                       bfti_space_lists(v->engine->buffer.pf, i, &place, 1);
         i++)
        status = mark_meta(v, place, BFTI_EXTENT_MAP,
                           "a list of the free-space map");
    return status;
}

/* What the last superblock reaches besides trees; checkpoint_lock keeps it. */
static bft_status verify_meta(struct verify *v)
{
    const struct bfti_superblock *sb = &v->engine->superblock;
    struct bfti_table *table = v->engine->buffer.table;
    bft_status status = verify_superblocks(v);
    for (unsigned i = 0; status == BFT_OK && i < sb->root_count; i++)
        status = mark_meta(v, sb->root[i],
                           i ? BFTI_EXTENT_TABLE : BFTI_EXTENT_CATALOGUE,
                           i ? "the page table" : "the catalogue");
    for (unsigned i = 0; status == BFT_OK && i < sb->map_count; i++)
        status =
            mark_meta(v, sb->map[i], BFTI_EXTENT_MAP, "the free-space map");
    if (status == BFT_OK)
        status = verify_lists(v);
    for (size_t i = 0; status == BFT_OK && i < bfti_table_parts(table); i++)
        status = mark_meta(v, bfti_table_part(table, i)->place,
                           BFTI_EXTENT_TABLE, "a part of the page table");
    return status;
}

static bft_status verify_dictionaries(struct verify *v)
{
    uint64_t places[BFTI_DICTIONARIES_MAX];
    unsigned count =
        bfti_codec_places(v->engine->buffer.pf, v->tree->id, false, places);
    bft_status status = BFT_OK;
    char what[BFTI_NAME_MAX + 32];
    (void)snprintf(what, sizeof(what), "a dictionary of tree %s",
                   v->tree->name);
    for (unsigned i = 0; status == BFT_OK && i < count; i++)
        status = mark_meta(v, places[i], BFTI_EXTENT_DICTIONARY, what);
    return status;
}

static bft_status verify_trees(struct verify *v)
{
    bft_status status = BFT_OK;
    /* checkpoint_lock keeps trees from being added or dropped. */
    for (v->tree = v->engine->trees; status == BFT_OK && v->tree;
         v->tree = v->tree->next) {
        if (!bfti_tree_root(v->tree))
            continue;
        status = verify_dictionaries(v);
        if (status == BFT_OK)
            status = verify_inner(v);
        if (status == BFT_OK)
            status = verify_leaves(v);
    }
    return status;
}

/*
 * What tells that extents came or went.  An extent is private from its
 * allocation on, then counted as written, then linked.
 */
struct activity {
    uint64_t log_end, extents_written, private_extents;
};

static struct activity activity_now(struct bfti_engine *engine)
{
    struct bfti_space_stats space;
    struct activity now;
    /* The private ones first: what is linked meanwhile is counted by then. */
    bfti_space_stats(engine->buffer.pf, &space);
    now.private_extents = space.private_extents;
    now.extents_written = space.extents_written;
    now.log_end = bfti_wal_end(engine->buffer.wal);
    return now;
}

/* Nothing was private at the start, and nothing was written since FIRST, which
 * is of before the start, nor is about to be linked. */
static bool was_quiet(const struct activity *first,
                      const struct activity *start, const struct activity *end)
{
    return start->private_extents == 0 && end->private_extents == 0 &&
           first->extents_written == end->extents_written &&
           first->log_end == end->log_end;
}

/* One walk.  *CERTAIN: it says all there is to say. */
static bft_status verify_round(struct verify *v, bool *certain)
{
    struct bfti_pagefile *pf = v->engine->buffer.pf;
    struct activity first = activity_now(v->engine);
    struct activity start = activity_now(v->engine), end;
    uint64_t leaked;
    bft_status status = bfti_space_audit_begin(pf);
    if (status != BFT_OK)
        return status;
    v->disturbed = v->busy = false;
    status = verify_meta(v);
    if (status == BFT_OK)
        status = verify_trees(v);
    leaked = bfti_space_audit_end(pf);
    end = activity_now(v->engine); /* what was in use, but private, shows */
    *certain = !v->disturbed && !v->busy && was_quiet(&first, &start, &end);
    if (status == BFT_OK && *certain && leaked &&
        !atomic_load(&v->engine->failed))
        status = bfti_fail(BFT_CORRUPT,
                           "%s: %llu blocks are in use, but nothing leads to "
                           "them",
                           v->engine->path, (unsigned long long)leaked);
    return status;
}

bft_status bfti_verify(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct verify *v = bfti_alloc(engine->env, sizeof(*v));
    bft_status status = BFT_OK;
    bool certain = false;
    if (!v)
        return bfti_fail(BFT_NO_MEMORY, "no memory to verify %s", engine->path);
    memset(v, 0, sizeof(*v));
    v->engine = engine;
    v->rec = rec;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    status = bfti_trees_clear_rest(engine, rec);
    for (int i = 0; i < VERIFY_ROUNDS && status == BFT_OK && !certain; i++)
        status = verify_round(v, &certain);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    bfti_free(engine->env, v->places.place);
    bfti_free(engine->env, v->parts.place);
    bfti_free(engine->env, v);
    return status;
}
