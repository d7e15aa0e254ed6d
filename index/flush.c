/*
 * A checkpoint in stages.  The content of all leaves is replaced one by one, as
 * eviction would do it, from a position of the log on; whenever as much has been
 * replaced as may wait, an image of the leaves as they are on the disk is made, from
 * which redo still starts where it started before.  An image of that kind behind
 * the last leaf has all that was published before the position.
 *
 * So a checkpoint that replaces everything needs a part of that in free space, and
 * not as much again.  README.md section 7 has the argument.
 */
#include "engine.h"
#include "image.h"

#include <assert.h>

enum { LEAF_TRIES = 1000000, LOOK_EVERY = 16 };

struct flush {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status (*stage)(void *ctx);
    void *ctx;
    unsigned leaves; /* since the last look at the space */
};

static bool is_large(struct bfti_engine *engine, uint32_t tree_id)
{
    const struct bfti_tree *tree = bfti_tree_by_id(engine, tree_id);
    return !tree || atomic_load(&tree->has_large);
}

/* Under the leaf's latch: is all on the disk that was in the leaf at the first
 * look?  False: its frozen page is to be merged.  *TARGET is the frozen page that
 * has the newest of what is to go, once there is one. */
static bool is_flushed(const struct flush *f, const struct bfti_entry *entry,
                       uint64_t *target)
{
    uint64_t word = bfti_entry_word(entry), beneath;
    struct bfti_minipage *page;
    if (!bfti_word_in_memory(word))
        return true;
    page = bfti_page_at(&f->engine->buffer, word);
    beneath = atomic_load(&page->beneath);
    if (!bfti_minipage_frozen(page)) {
        if (bfti_word_in_memory(beneath))
            return *target && *target != beneath;
        if (*target || !bfti_minipage_is_dirty(page))
            return true;
        bfti_freeze(f->rec, page);
    } else if (*target && *target != word) {
        return true;
    }
    *target = word;
    return false;
}

static bft_status flush_leaf(struct flush *f, uint64_t id)
{
    struct bfti_buffer *buffer = &f->engine->buffer;
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    uint64_t target = 0;
    /* Ends: a page that was frozen at the first look is merged, by us or by
     * another, then one that we froze; what comes later does not count. */
    for (int i = 0; i < LEAF_TRIES; i++) {
        bool flushed, done;
        bft_status status;
        bfti_latch(f->engine->env, entry);
        flushed =
            bfti_flush_has(buffer->table, id) || is_flushed(f, entry, &target);
        if (flushed)
            bfti_flush_set(buffer->table, id);
        bfti_unlatch(f->engine->env, entry, false);
        if (flushed)
            return BFT_OK;
        PARK("flush:frozen");
        status = bfti_merge(buffer, f->rec, id,
                            bfti_checkpoint_merge(f->engine), &done);
        PARK("flush:merged");
        /* Its tree went, and no image needs what is in memory: checkpoint.c. */
        if ((status != BFT_OK || !done) && bfti_trees_left(f->engine, id))
            return BFT_OK;
        if (status != BFT_OK)
            return status;
        if (!done)
            f->engine->env->yield(f->engine->env->ctx);
    }
    return bfti_fail(BFT_BUSY, "page %llu could not be written",
                     (unsigned long long)id);
}

static bft_status flush_and_look(struct flush *f, uint64_t id)
{
    bft_status status = flush_leaf(f, id);
    if (status != BFT_OK || ++f->leaves < LOOK_EVERY)
        return status;
    f->leaves = 0;
    if (bfti_space_is_due(f->engine))
        status = f->stage(f->ctx);
    return status == BFT_BUSY ? BFT_OK : status;
}

/* The leaf ID, if it has anything in memory. */
static bft_status flush_page(struct flush *f, uint64_t id)
{
    const struct bfti_entry *entry =
        bfti_table_entry(f->engine->buffer.table, id);
    return bfti_word_in_memory(bfti_entry_word(entry)) ? flush_and_look(f, id)
                                                       : BFT_OK;
}

/* Is a checkpoint's merge of the leaf ID to read?  Not if it is written to now. */
static bool is_to_be_read(struct bfti_engine *engine, uint64_t id)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    bool reads = false;
    uint64_t word;
    if (!bfti_word_in_memory(bfti_entry_word(entry)) || !bfti_latch_try(entry))
        return false;
    word = bfti_entry_word(entry);
    if (bfti_word_in_memory(word)) {
        const struct bfti_minipage *page = bfti_page_at(buffer, word);
        uint64_t beneath = atomic_load(&page->beneath);
        if (bfti_word_in_memory(beneath))
            page = bfti_page_at(buffer, beneath);
        reads = (bfti_minipage_frozen(page) || bfti_minipage_is_dirty(page)) &&
                bfti_merge_reads(buffer, page, bfti_checkpoint_merge(engine));
    }
    bfti_unlatch(engine->env, entry, false);
    return reads;
}

size_t bfti_flush_expect(struct bfti_engine *engine, struct bfti_rec *rec,
                         const uint64_t *ids, size_t n)
{
    uint64_t read[BFTI_FLUSH_AHEAD];
    size_t at[BFTI_FLUSH_AHEAD], count = 0, fetched;
    assert(n <= BFTI_FLUSH_AHEAD);
    if (!rec->awaited) /* as far as is known by now */
        return n < LOOK_EVERY ? n : LOOK_EVERY;
    for (size_t i = 0; i < n; i++)
        if (is_to_be_read(engine, ids[i])) {
            at[count] = i;
            read[count++] = ids[i];
        }
    if (count < 2)
        return n;
    fetched = bfti_leaf_fetch(engine, rec, engine, read, count);
    bfti_leaf_announce(engine, rec, read + fetched, count - fetched);
    return fetched > 0 && fetched < count ? at[fetched] : n;
}

/* Leaves with pages in the order of their keys, so that they come to lie in the
 * file like that, where scans read them.  Not all of them: of some the inner node
 * is away, others come while we are at it. */
static bft_status flush_in_order(struct flush *f)
{
    bft_status status = BFT_OK;
    struct bfti_tree *tree = NULL;
    uint32_t id = 0;
    while (status == BFT_OK && (tree = bfti_tree_after(f->engine, id))) {
        uint8_t buf[2][BFTI_KEY_MAX];
        unsigned next = 0;
        bft_slice key = {NULL, 0};
        id = tree->id;
        do {
            uint64_t ids[BFTI_FLUSH_AHEAD];
            size_t n = 0, next_len = 0, expected = 0;
            const struct bfti_inner *root;
            bfti_read_begin(f->rec);
            root = bfti_tree_root(tree); /* [root] */
            if (root)
                n = bfti_inner_stretch(root, key, ids, BFTI_FLUSH_AHEAD,
                                       buf[next], &next_len);
            bfti_read_end(f->rec);
            key = (bft_slice){buf[next], next_len};
            next = !next;
            for (size_t i = 0; status == BFT_OK && i < n; i++) {
                if (i == expected)
                    expected +=
                        bfti_flush_expect(f->engine, f->rec, ids + i, n - i);
                status = flush_page(f, ids[i]);
            }
        } while (status == BFT_OK && key.len);
    }
    bfti_ahead_drop(f->rec, f->engine);
    return status;
}

static bft_status flush_all(struct flush *f)
{
    struct bfti_table *table = f->engine->buffer.table;
    uint64_t ids = bfti_table_ids(table), id;
    bft_status status = flush_in_order(f);
    for (id = 1; status == BFT_OK && id < ids; id++) {
        const struct bfti_part *part =
            bfti_table_part(table, (size_t)(id / BFTI_PART_IDS));
        if (bfti_part_changed(part))
            status = flush_and_look(f, id);
        else /* to its end: LOOK_EVERY leaves are not to be looked at for it */
            id |= BFTI_PART_IDS - 1;
    }
    do {
        if (status == BFT_OK)
            status = bfti_flush_pop(table, &id);
        if (status == BFT_OK && id)
            status = flush_and_look(f, id);
    } while (status == BFT_OK && id);
    return status;
}

bft_status bfti_flush(struct bfti_engine *engine, struct bfti_rec *rec,
                      bft_status (*stage)(void *ctx), void *ctx,
                      uint64_t *redo_lsn)
{
    struct flush f = {engine, rec, stage, ctx, 0};
    bft_status status;
    /* Before the position is read: a leaf that is split from then on is noted; one
     * that was split before has an id that is visited. */
    bfti_flush_begin(engine->buffer.table);
    *redo_lsn = bfti_redo_start(engine);
    PARK("flush:begun");
    status = flush_all(&f);
    bfti_flush_end(engine->buffer.table);
    return status;
}

/* NULL, or what the image has of a leaf with PAGE on top, though newer records are
 * in memory: under the latch. */
uint64_t bfti_flush_beneath(struct bfti_engine *engine,
                            const struct bfti_minipage *page)
{
    uint64_t beneath = atomic_load(&page->beneath);
    /* The extents of a large value belong to the image from its put on: with a
     * word that does not lead to them they would be lost after a crash. */
    if (is_large(engine, le32_get(bfti_minipage_run(page)->tree_id)))
        return 0;
    if (bfti_word_in_memory(beneath))
        beneath = atomic_load(&bfti_page_at(&engine->buffer, beneath)->beneath);
    return beneath;
}
