/*
 * Checkpoint: fuzzy and incremental; of a larger database in stages (flush.c).
 *
 * Cut (log end, in-flight slots, then the parts of the page table that changed),
 * gather (each changed leaf's content goes to disk, its word into the image),
 * structure (each tree's root as of one instant after that, without leaves that
 * are younger than the image), page-table parts, directory, catalogue,
 * free-space map, syncs, superblock.  README.md section 7 says what each step
 * leaves behind.
 */
#include "catalogue.h"
#include "expiry.h"
#include "image.h"
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>

enum {
    LEAF_TRIES = 1000000,
    LATCH_WAITS = 3, /* of what can be done without */
    LATCH_WAIT_NS = 10 * 1000 * 1000,
};

struct checkpoint {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    uint64_t epoch;
    bool
        of_disk; /* the image has leaves as they are on the disk, where they are;
                     else as they were at the cut at least */
    bool may_fail; /* rather than wait for a leaf */
    bool tombs;    /* the image has tombstones of ranges */
    uint64_t redo_lsn;
    uint64_t log_end;          /* behind all that the image may have */
    struct bfti_superblock sb; /* under construction */
    uint64_t map[BFTI_MAP_PLACES];
    uint32_t map_count;
};

/* --- gathering ----------------------------------------------------------- */

unsigned bfti_checkpoint_merge(const struct bfti_engine *engine)
{
    /* Written content stays cached while there is plenty of room. */
    bool roomy = bfti_pool_free_bytes(engine->buffer.pool) >
                 engine->options.memory_bytes / 4;
    return BFTI_MERGE_DELTA | BFTI_MERGE_ROOM | (roomy ? BFTI_MERGE_KEEP : 0);
}

/*
 * Under the latch: the leaf's word for the image, when its disk content holds
 * all that was published before the cut.  False: it does not, and its frozen
 * page is to be merged.  A page that holds all that the image is to have is
 * closed: whoever merges it puts the leaf into the image.  Of an image of the disk
 * the leaf has its disk content, whatever is *NEWER than that.
 */
static bool leaf_word(struct checkpoint *c, uint64_t word, uint64_t *image,
                      bool *newer)
{
    struct bfti_minipage *page;
    uint64_t beneath;
    *newer = false;
    if (!bfti_word_in_memory(word)) {
        *image = bfti_word_on_disk(word) ? word : 0;
        return true;
    }
    page = bfti_page_at(&c->engine->buffer, word);
    beneath = atomic_load(&page->beneath);
    if (!bfti_minipage_frozen(page) && !bfti_word_in_memory(beneath) &&
        beneath && !bfti_minipage_is_dirty(page)) {
        *image = beneath;
        return true;
    }
    if (c->of_disk && (*image = bfti_flush_beneath(c->engine, page)) != 0) {
        *newer = true;
        return true;
    }
    if (!bfti_minipage_frozen(page)) {
        if (bfti_word_in_memory(beneath))
            return false;
        bfti_freeze(c->rec, page);
    }
    page->closed_by = (uint32_t)c->epoch;
    return false;
}

/* False: somebody was stopped with the latch. */
static bool latch(const struct checkpoint *c, struct bfti_entry *entry)
{
    const struct bfti_env *env = c->engine->env;
    for (int i = 0; c->may_fail && i < LATCH_WAITS; i++)
        if (bfti_latch_within(env, entry, LATCH_WAIT_NS))
            return true;
    if (!c->may_fail)
        bfti_latch(env, entry);
    return !c->may_fail;
}

/* A leaf of a tree that went, which could not be cleared (tree_drop.c): it cannot
 * be read, and no split of it begins any more, so it may never be merged; and no
 * image needs what its pages in memory have.  Put its disk content into the image,
 * for who clears the rest once it can be read; false: it is another leaf. */
static bool take_left(struct checkpoint *c, struct bfti_entry *entry,
                      uint64_t id)
{
    struct bfti_buffer *buffer = &c->engine->buffer;
    uint64_t word;
    if (!bfti_trees_left(c->engine, id) || !latch(c, entry))
        return false;
    word = bfti_entry_word(entry);
    while (bfti_word_in_memory(word))
        word = atomic_load(&bfti_page_at(buffer, word)->beneath);
    if (word && !bfti_table_gathered(buffer->table, id))
        bfti_table_take(buffer->table, id, word);
    bfti_unlatch(c->engine->env, entry, false);
    return true;
}

/* Under the latch, of a leaf that counts as taken.  One that was split off a leaf
 * which the cut had passed, before it came to this one's part, is in the image as
 * what that leaf was.  The cut has taken the part's mark for this image: the next
 * one must come here again. */
static void note_left_out(struct checkpoint *c, const struct bfti_entry *entry,
                          uint64_t id)
{
    struct bfti_table *table = c->engine->buffer.table;
    if (bfti_entry_word(entry) != 0 && !bfti_table_in_image(table, id))
        (void)bfti_table_change(table, id);
}

static bft_status gather(struct checkpoint *c, uint64_t id)
{
    struct bfti_buffer *buffer = &c->engine->buffer;
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    /* Ends: the page that we close leaves the leaf, and the leaf is taken, by
     * our merge or by another's. */
    for (int i = 0; i < LEAF_TRIES; i++) {
        uint64_t image = 0;
        bool ready, done, newer;
        bft_status status;
        /* Also of an id without a word: one that a split has told us of before
         * we began gets its word under this latch. */
        if (!latch(c, entry))
            return bfti_fail(BFT_BUSY, "page %llu is being written",
                             (unsigned long long)id);
        if (bfti_table_gathered(buffer->table, id)) {
            note_left_out(c, entry, id);
            bfti_unlatch(c->engine->env, entry, false);
            return BFT_OK;
        }
        ready = leaf_word(c, bfti_entry_word(entry), &image, &newer);
        if (ready && image)
            bfti_table_take(buffer->table, id, image);
        if (ready && newer) /* the next one has to come here, too */
            (void)bfti_table_change(buffer->table, id);
        bfti_unlatch(c->engine->env, entry, false);
        if (ready)
            return BFT_OK;
        PARK("checkpoint:frozen");
        status = bfti_merge(buffer, c->rec, id,
                            bfti_checkpoint_merge(c->engine), &done);
        PARK("checkpoint:merged");
        if ((status != BFT_OK || !done) && take_left(c, entry, id))
            return BFT_OK;
        if (status != BFT_OK)
            return status;
        if (!done)
            c->engine->env->yield(c->engine->env->ctx);
    }
    return bfti_fail(BFT_BUSY, "page %llu could not be written",
                     (unsigned long long)id);
}

/* The leaves from FROM on, which are below TO, come next; up to which one need no
 * more be told? */
static uint64_t expect(const struct checkpoint *c, uint64_t from, uint64_t to)
{
    uint64_t ids[BFTI_FLUSH_AHEAD];
    size_t n = 0;
    if (c->of_disk) /* nothing is read */
        return to;
    for (; n < BFTI_FLUSH_AHEAD && from + n < to; n++)
        ids[n] = from + n;
    return from + bfti_flush_expect(c->engine, c->rec, ids, n);
}

static bft_status gather_all(struct checkpoint *c)
{
    struct bfti_table *table = c->engine->buffer.table;
    size_t parts = bfti_table_parts(table);
    uint64_t ids = bfti_table_ids(table), id;
    bft_status status = BFT_OK;
    for (size_t i = 0; i < parts; i++) {
        uint64_t end = (i + 1) * BFTI_PART_IDS, expected = 1;
        if (!bfti_part_visited(table, bfti_table_part(table, i)))
            continue;
        if (end > ids)
            end = ids;
        for (id = i * BFTI_PART_IDS; status == BFT_OK && id < end; id++) {
            if (id && id >= expected)
                expected = expect(c, id, end);
            if (id)
                status = gather(c, id);
        }
        if (status != BFT_OK)
            return status;
    }
    do {
        status = bfti_table_pop_extra(table, &id);
        if (status == BFT_OK && id &&
            !bfti_fault_on(BFTI_FAULT_GATHER_SKIPS_SPLIT))
            status = gather(c, id);
    } while (status == BFT_OK && id);
    return status;
}

/* --- extents of the image itself ----------------------------------------- */

static bft_status write_meta(struct checkpoint *c, enum bfti_extent_type type,
                             uint64_t page_id, uint32_t tree_id,
                             const void *bytes, size_t len, uint64_t *place)
{
    struct bfti_buffer *buffer = &c->engine->buffer;
    struct bfti_extent_info info = {type, tree_id, page_id,
                                    bfti_wal_end(buffer->wal)};
    bft_status status = bfti_extent_write(buffer->pf, &info, bytes, len, place);
    if (status == BFT_OK)
        bfti_extent_link(buffer->pf, *place, 0);
    return status;
}

/* The image does not reach it any more. */
static bft_status unlink_meta(struct checkpoint *c, uint64_t place)
{
    return place ? bfti_extent_unlink(c->engine->buffer.pf, place, 0, 0)
                 : BFT_OK;
}

/* --- structure ----------------------------------------------------------- */

/* A node's children as the image will have them. */
struct children {
    uint64_t *word;
    bft_slice *key;
    size_t count;
    uint8_t *bytes; /* of the keys */
    size_t used, cap;
    bool whole; /* none was left out */
};

static void children_free(const struct bfti_env *env, struct children *ch)
{
    bfti_free(env, ch->word);
    bfti_free(env, ch->key);
    bfti_free(env, ch->bytes);
}

static bft_status children_make(const struct bfti_env *env, size_t count,
                                struct children *ch)
{
    memset(ch, 0, sizeof(*ch));
    ch->whole = true;
    ch->word = bfti_alloc(env, count * sizeof(*ch->word));
    ch->key = bfti_alloc(env, count * sizeof(*ch->key));
    if (ch->word && ch->key)
        return BFT_OK;
    children_free(env, ch);
    return bfti_fail(BFT_NO_MEMORY, "no memory to write an inner node");
}

/* KEY is kept as an offset until all are there: the bytes may move. */
static bft_status children_add(const struct bfti_env *env, struct children *ch,
                               uint64_t word, bft_slice key)
{
    if (ch->cap - ch->used < key.len) {
        size_t cap = (ch->cap + key.len) * 2;
        uint8_t *grown = bfti_realloc(env, ch->bytes, cap);
        if (!grown)
            return bfti_fail(BFT_NO_MEMORY, "no memory for an inner node");
        ch->bytes = grown;
        ch->cap = cap;
    }
    if (key.len)
        memcpy(ch->bytes + ch->used, key.data, key.len);
    ch->word[ch->count] = word;
    ch->key[ch->count].len = key.len;
    ch->count++;
    ch->used += key.len;
    return BFT_OK;
}

static void children_settle(struct children *ch)
{
    size_t at = 0;
    for (size_t i = 0; i < ch->count; i++) {
        /* There are no bytes while all keys are empty. */
        ch->key[i].data = ch->bytes ? ch->bytes + at : NULL;
        at += ch->key[i].len;
    }
}

/* What the image has of a node: its extent, or nothing; the lowest key of what
 * is there (when leaves at its left end were left out, later than the node's
 * own); whether the extent may serve later images too. */
struct node_image {
    uint64_t place;
    uint8_t low[BFTI_KEY_MAX];
    size_t low_len;
    bool whole;
};

static bft_status write_node(struct checkpoint *c, uint32_t tree_id,
                             struct bfti_inner *node, bft_slice low,
                             struct node_image *out);

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status add_child(struct checkpoint *c, uint32_t tree_id,
                            const struct bfti_inner *node, unsigned i,
                            bft_slice low, struct children *ch)
{
    const struct bfti_env *env = c->engine->env;
    struct node_image *child;
    bft_status status;
    if (node->height == 1) {
        uint64_t id = bfti_inner_page(node, i);
        if (bfti_table_in_image(c->engine->buffer.table, id))
            return children_add(env, ch, id, low);
        ch->whole = false;
        return BFT_OK;
    }
    child = bfti_alloc(env, sizeof(*child));
    if (!child)
        return bfti_fail(BFT_NO_MEMORY, "no memory for an inner node");
    status = write_node(c, tree_id, bfti_inner_child(node, i), low, child);
    if (status == BFT_OK && child->place) {
        bft_slice from = {child->low, child->low_len};
        status = children_add(env, ch, child->place, from);
    }
    ch->whole = ch->whole && child->whole;
    bfti_free(env, child);
    return status;
}

static bft_status encode_node(struct checkpoint *c, uint32_t tree_id,
                              const struct bfti_inner *node,
                              struct children *ch, uint64_t *place)
{
    size_t bytes;
    bft_status status;
    children_settle(ch);
    bytes = bfti_inner_encoded_size(ch->key, ch->count);
    status = bfti_rec_buf(c->rec, 1, bytes);
    if (status != BFT_OK)
        return status;
    bfti_inner_encode(c->rec->buf[1], node->height, ch->word, ch->key,
                      ch->count);
    return write_meta(c, BFTI_EXTENT_INNER, 0, tree_id, c->rec->buf[1], bytes,
                      place);
}

/* The extent belongs to the node while that is in the tree, else to this image
 * alone. */
static bft_status keep_node(struct checkpoint *c, struct bfti_inner *node,
                            uint64_t place, bool whole)
{
    uint64_t none = 0;
    if (whole) {
        node->image_place = place;
        /* [node] */
        if (atomic_compare_exchange_strong(&node->place, &none, place))
            return BFT_OK;
    }
    return bfti_extent_unlink(c->engine->buffer.pf, place, c->epoch, 0);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status write_node(struct checkpoint *c, uint32_t tree_id,
                             struct bfti_inner *node, bft_slice low,
                             struct node_image *out)
{
    uint8_t key[BFTI_KEY_MAX];
    const struct bfti_inner *at;
    struct children ch;
    bft_status status;

    memset(out, 0, offsetof(struct node_image, low));
    out->low_len = low.len;
    out->whole = true;
    if (low.len)
        memcpy(out->low, low.data, low.len);
    if (node->image_place) {
        out->place = node->image_place;
        return BFT_OK;
    }
    at = bfti_inner_here(node);
    assert(at); /* what is in no extent stays */
    status = children_make(c->engine->env, at->count, &ch);
    if (status != BFT_OK)
        return status;
    for (unsigned i = 0; status == BFT_OK && i < at->count; i++) {
        bft_slice from = low;
        if (i) {
            from.data = key;
            from.len = bfti_inner_key(at, i, key);
        }
        status = add_child(c, tree_id, at, i, from, &ch);
    }
    if (status == BFT_OK && ch.count) {
        out->low_len = ch.key[0].len;
        if (out->low_len)
            memcpy(out->low, ch.bytes, out->low_len);
        status = encode_node(c, tree_id, node, &ch, &out->place);
    }
    out->whole = ch.whole;
    if (status == BFT_OK && out->place)
        status = keep_node(c, node, out->place, ch.whole);
    children_free(c->engine->env, &ch);
    return status;
}

/* --- catalogue ----------------------------------------------------------- */

/* The tree's structure as of one instant, and what it changes into while it is
 * written is not freed: so one tree at a time, and not while leaves are
 * gathered, which splits many. */
static bft_status write_tree(struct checkpoint *c, struct bfti_tree *tree,
                             struct node_image *image)
{
    struct bfti_threads *threads = c->engine->buffer.threads;
    struct bfti_hold hold;
    bft_slice none = {NULL, 0};
    bft_status status;
    bfti_defer_hold(threads, &hold);
    /* [root] the structure as of now; later changes see the mark */
    atomic_fetch_or(&tree->root, (uintptr_t)BFTI_ROOT_TAKEN);
    status = write_node(c, tree->id, bfti_tree_root(tree), none, image);
    bfti_defer_unhold(threads, &hold);
    if (status == BFT_OK && !image->place)
        status = bfti_fail(BFT_CORRUPT, "tree %s has no leaf", tree->name);
    return status;
}

static bft_status write_trees(struct checkpoint *c)
{
    struct bfti_engine *engine = c->engine;
    size_t bytes = 4, at = 4;
    uint32_t count = 0;
    bft_status status;
    struct node_image *image = bfti_alloc(engine->env, sizeof(*image));
    uint8_t *buf;
    if (!image)
        return bfti_fail(BFT_NO_MEMORY, "no memory for the catalogue");
    /* checkpoint_lock keeps trees from being added or dropped. */
    status = bfti_tombs_take(engine, c->rec, &c->tombs);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        bytes += bfti_catalogue_size(t);
    buf = bfti_alloc(engine->env, bytes);
    if (status == BFT_OK && !buf)
        status = bfti_fail(BFT_NO_MEMORY, "no memory for the catalogue");
    for (struct bfti_tree *t = engine->trees; status == BFT_OK && t;
         t = t->next) {
        if (!bfti_tree_root(t))
            continue; /* dropped */
        status = write_tree(c, t, image);
        at += bfti_catalogue_put(buf + at, t, image->place);
        count++;
    }
    if (status == BFT_OK) {
        le32 n = le32_of(count);
        uint64_t old = c->engine->superblock.root[0], place;
        memcpy(buf, &n, 4);
        status = write_meta(c, BFTI_EXTENT_CATALOGUE, 0, 0, buf, at, &place);
        if (status == BFT_OK) {
            c->engine->superblock.root[0] = place;
            status = unlink_meta(c, old);
        }
    }
    bfti_free(engine->env, buf);
    bfti_free(engine->env, image);
    return status;
}

/* --- page table ---------------------------------------------------------- */

static bft_status write_part(struct checkpoint *c, size_t i)
{
    struct bfti_part *part = bfti_table_part(c->engine->buffer.table, i);
    le64 words[BFTI_PART_IDS];
    uint64_t old = part->place, place;
    bft_status status;
    for (size_t w = 0; w < BFTI_PART_IDS; w++)
        words[w] = le64_of(part->image[w]);
    status =
        write_meta(c, BFTI_EXTENT_TABLE, i, 0, words, sizeof(words), &place);
    if (status != BFT_OK)
        return status;
    part->place = place;
    return unlink_meta(c, old);
}

/* Of PARTS parts, which are written. */
static bft_status write_directory(struct checkpoint *c, size_t parts)
{
    struct bfti_table *table = c->engine->buffer.table;
    size_t each = BFTI_EXTENT_RAW_MAX / sizeof(le64), extents = 0;
    uint64_t old[BFTI_ROOT_PLACES] = {0}, fresh[BFTI_ROOT_PLACES] = {0};
    struct bfti_superblock *sb = &c->engine->superblock;
    bft_status status = BFT_OK;

    if ((parts + each - 1) / each > BFTI_ROOT_PLACES - 1)
        return bfti_fail(BFT_NO_SPACE, "the page table is full");
    for (size_t i = 1; i < BFTI_ROOT_PLACES && i < sb->root_count; i++)
        old[i] = sb->root[i];
    for (size_t at = 0; status == BFT_OK && at < parts;) {
        size_t n = parts - at < each ? parts - at : each;
        status = bfti_rec_buf(c->rec, 1, n * sizeof(le64));
        if (status != BFT_OK)
            break;
        for (size_t i = 0; i < n; i++)
            ((le64 *)c->rec->buf[1])[i] =
                le64_of(bfti_table_part(table, at + i)->place);
        status =
            write_meta(c, BFTI_EXTENT_TABLE, BFTI_DIRECTORY_ID | extents, 0,
                       c->rec->buf[1], n * sizeof(le64), &fresh[1 + extents]);
        extents++;
        at += n;
    }
    if (status == BFT_OK) {
        memcpy(sb->root + 1, fresh + 1, sizeof(fresh) - sizeof(fresh[0]));
        sb->root_count = (uint32_t)(1 + extents);
    }
    /* One of the two directories goes, the new one if it is not whole. */
    for (size_t i = 1; i < BFTI_ROOT_PLACES; i++) {
        bft_status gone = unlink_meta(c, status == BFT_OK ? old[i] : fresh[i]);
        if (gone != BFT_OK)
            return gone;
    }
    return status;
}

/* A part that is made from here on has no leaf in the image: the inner nodes of
 * that were written before. */
static bft_status write_table(struct checkpoint *c)
{
    struct bfti_table *table = c->engine->buffer.table;
    size_t parts = bfti_table_parts(table);
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < parts; i++)
        if (bfti_part_visited(table, bfti_table_part(table, i)))
            status = write_part(c, i);
    PARK("checkpoint:parts-written");
    return status == BFT_OK ? write_directory(c, parts) : status;
}

/* --- the whole ----------------------------------------------------------- */

static bft_status write_map(struct checkpoint *c)
{
    struct bfti_superblock *sb = &c->engine->superblock;
    uint64_t places[BFTI_MAP_PLACES];
    size_t count;
    bft_status status =
        bfti_space_write(c->engine->buffer.pf, sb->map, sb->map_count, places,
                         BFTI_MAP_PLACES, &count);
    if (status != BFT_OK)
        return status;
    /* The superblock's map stays the current one until the new is named. */
    memcpy(c->map, places, count * sizeof(*places));
    c->map_count = (uint32_t)count;
    return BFT_OK;
}

/* SB into slot SLOT; whether one that failed has reached the disk nobody knows. */
static bft_status write_superblock(struct bfti_engine *engine, unsigned slot,
                                   const struct bfti_superblock *sb)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    bft_status status = bfti_superblock_write(pf, slot, sb);
    if (status == BFT_IO || bfti_pagefile_poisoned(pf))
        bfti_wal_poison(engine->buffer.wal);
    engine->superblock_cut = status != BFT_OK;
    return status;
}

/* Everything is written: make it durable and name it. */
static bft_status seal(struct checkpoint *c)
{
    struct bfti_engine *engine = c->engine;
    struct bfti_wal *wal = engine->buffer.wal;
    bft_status status = bfti_pages_sync(engine);
    c->log_end = bfti_wal_end(wal);
    if (status == BFT_OK)
        status = bfti_wal_sync(wal, &c->rec->wal, c->log_end);
    if (status == BFT_IO)
        bfti_wal_poison(wal);
    if (status != BFT_OK)
        return status;
    PARK("checkpoint:synced");
    if (bfti_fault_on(BFTI_FAULT_LOG_DROPPED_EARLY))
        status = bfti_wal_drop_below(wal, c->redo_lsn);
    if (bfti_fault_on(BFTI_FAULT_REDO_TOO_LATE))
        c->redo_lsn = c->log_end;
    if (status != BFT_OK)
        return status;
    c->sb = engine->superblock;
    memcpy(c->sb.map, c->map, sizeof(c->map));
    c->sb.map_count = c->map_count;
    c->sb.sequence++;
    c->sb.redo_lsn = c->redo_lsn;
    c->sb.durable_mark = bfti_wal_durable(wal);
    c->sb.page_ids = bfti_table_ids(engine->buffer.table);
    c->sb.next_tree_id = engine->next_tree_id;
    if (atomic_load(&engine->buffer.lists))
        c->sb.must_know |= BFTI_FEATURE_DELTA_LISTS;
    if (atomic_load(&engine->expires))
        c->sb.must_know |= BFTI_FEATURE_EXPIRY;
    if (c->tombs)
        c->sb.must_know |= BFTI_FEATURE_TOMBS;
    if (bfti_dictionaries_any(engine))
        c->sb.must_know |= BFTI_FEATURE_DICTIONARIES;
    c->sb.must_know &= ~BFTI_FEATURE_SHARED;
    if (bfti_space_shares(engine->buffer.pf))
        c->sb.must_know |= BFTI_FEATURE_SHARED;
    return write_superblock(engine, engine->superblock_slot ^ 1u, &c->sb);
}

static bft_status may_checkpoint(struct bfti_engine *engine)
{
    uint32_t failed = atomic_load(&engine->failed);
    if (bfti_wal_poisoned(engine->buffer.wal))
        return bfti_fail(BFT_POISONED, "%s: a sync failed", engine->path);
    if (failed)
        return bfti_fail((bft_status)(-(int)failed),
                         "%s: no checkpoint after an earlier failure",
                         engine->path);
    return BFT_OK;
}

static bft_status write_image(struct checkpoint *c)
{
    bft_status status = bfti_table_cut(c->engine->buffer.table, c->epoch);
    PARK("checkpoint:cut");
    if (status == BFT_OK)
        status = gather_all(c);
    PARK("checkpoint:gathered");
    if (status == BFT_OK && bfti_fault_on(BFTI_FAULT_EXTENT_REUSED_EARLY))
        status = bfti_space_release(c->engine->buffer.pf);
    if (status == BFT_OK)
        status = write_trees(c);
    PARK("checkpoint:structure");
    /* A leaf that the inner nodes do not know, because a split failed to tell
     * them, is not in the image: it must not become the newest. */
    if (status == BFT_OK)
        status = may_checkpoint(c->engine);
    if (status == BFT_OK)
        status = write_table(c);
    if (status == BFT_OK)
        status = write_map(c);
    PARK("checkpoint:written");
    return status == BFT_OK ? seal(c) : status;
}

static void end(struct checkpoint *c, bool done)
{
    struct bfti_engine *engine = c->engine;
    if (done) {
        engine->superblock = c->sb;
        engine->superblock_slot ^= 1u;
        atomic_store(&engine->redo_lsn, c->redo_lsn);
        bfti_space_finish(engine->buffer.pf, c->redo_lsn);
        bfti_count(c->rec, BFTI_N_CHECKPOINTS, 1);
    } else {
        bfti_space_abandon(engine->buffer.pf);
    }
    atomic_store(&engine->epoch, 0);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        atomic_fetch_and(&t->root, ~(uintptr_t)BFTI_ROOT_TAKEN);
    bfti_table_finish(engine->buffer.table, done);
    bfti_nodes_drop(engine, 0, SIZE_MAX); /* what is on disk by now */
}

/*
 * The newest superblock into the other slot as well: then neither names the image
 * before it, whose space need not wait for the next checkpoint, and a superblock
 * that is damaged later is no loss.
 */
static bft_status write_twin(struct bfti_engine *engine)
{
    bft_status status = write_superblock(engine, engine->superblock_slot ^ 1u,
                                         &engine->superblock);
    PARK("checkpoint:twin-written");
    if (status == BFT_OK)
        bfti_space_twin(engine->buffer.pf);
    return status;
}

/* Not due again before more waits than does now. */
static void note_held(struct bfti_engine *engine)
{
    struct bfti_space_stats space;
    bfti_space_stats(engine->buffer.pf, &space);
    atomic_store(&engine->held_after, bfti_space_waiting(&space));
}

static bft_status release(struct bfti_engine *engine)
{
    bft_status status = bfti_space_release(engine->buffer.pf);
    note_held(engine);
    return status;
}

/* From the cut to the release. */
static bft_status make_image(struct checkpoint *c)
{
    struct bfti_engine *engine = c->engine;
    struct bfti_wal *wal = engine->buffer.wal;
    bft_status status;

    c->epoch = bfti_space_cut(engine->buffer.pf);
    atomic_store(&engine->epoch, c->epoch);
    if (!c->of_disk)
        c->redo_lsn = bfti_redo_start(engine); /* before it visits leaves */
    status = write_image(c);
    end(c, status == BFT_OK);
    if (status == BFT_OK)
        status = write_twin(engine);
    if (status == BFT_OK)
        status = bfti_wal_drop_below(wal, c->redo_lsn);
    if (status == BFT_OK)
        status = release(engine);
    atomic_fetch_add(&engine->log_word, 1);
    engine->env->wake(engine->env->ctx, &engine->log_word, true);
    return status;
}

/* Under the lock: an image for the space, of the disk.  BFT_BUSY: there is none,
 * because a writer was stopped in a leaf; the next is due when still more waits. */
static bft_status make_stage(void *ctx)
{
    const struct checkpoint *of = ctx;
    struct checkpoint c;
    bft_status status;
    memset(&c, 0, sizeof(c));
    c.engine = of->engine;
    c.rec = of->rec;
    c.of_disk = c.may_fail = true;
    (void)(bfti_trees_clear_rest(c.engine, c.rec) == BFT_OK);
    c.redo_lsn = atomic_load(&c.engine->redo_lsn);
    status = make_image(&c);
    if (status == BFT_BUSY)
        note_held(c.engine);
    return status;
}

/* Under the lock: must an image not have what is on the disk, with the redo start
 * of the last one?  Frames name extents of large values, and redo of such a frame
 * over an image that is much later finds them given back.  README.md section 7.
 * No frame is of a history. */
bool bfti_images_are_whole(const struct bfti_engine *engine)
{
    bool large = engine->redone;
    for (const struct bfti_tree *t = engine->trees; t && !large; t = t->next)
        large = !t->history && atomic_load(&t->has_large);
    return large;
}

static bft_status run(struct bfti_engine *engine, struct bfti_rec *rec,
                      struct bfti_picture *picture)
{
    struct checkpoint c;
    bft_status status = BFT_OK;

    memset(&c, 0, sizeof(c));
    c.engine = engine;
    c.rec = rec;
    /* What is damaged now was so before: its space is lost, which the drop has
     * told.  Of histories nobody is told, and this checkpoint may be the last: what
     * one of them could not read is tried again. */
    (void)(bfti_history_turn(engine, rec) == BFT_OK);
    (void)(bfti_trees_clear_rest(engine, rec) == BFT_OK);
    bfti_dictionaries_turn(engine);
    c.of_disk = bfti_space_staged(engine) && !bfti_images_are_whole(engine);
    if (c.of_disk)
        status = bfti_flush(engine, rec, make_stage, &c, &c.redo_lsn);
    if (status == BFT_OK)
        status = make_image(&c);
    engine->redone = engine->redone && status != BFT_OK;
    if (picture) {
        picture->sb = c.sb;
        picture->log_end = c.log_end;
    }
    return status;
}

/* PICTURE: to be held, or NULL. */
static bft_status run_and_unlock(struct bfti_engine *engine,
                                 struct bfti_rec *rec,
                                 struct bfti_picture *picture)
{
    bft_status status;
    atomic_store(&engine->want_checkpoint, false);
    status = run(engine, rec, picture);
    if (status != BFT_OK && status != BFT_BUSY) {
        /* Who waits for it is told: there will be no room. */
        atomic_fetch_add(&engine->images_failed, 1);
        atomic_fetch_add(&engine->log_word, 1);
        engine->env->wake(engine->env->ctx, &engine->log_word, true);
    }
    if (status == BFT_OK && picture) {
        /* Before the next checkpoint: it may drop what this one left. */
        bfti_space_hold(engine->buffer.pf);
        bfti_wal_keep(engine->buffer.wal, picture->sb.redo_lsn);
    }
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

bft_status bfti_checkpoint_locked(struct bfti_engine *engine,
                                  struct bfti_rec *rec)
{
    bft_status status = may_checkpoint(engine);
    if (status != BFT_OK)
        return status;
    atomic_store(&engine->want_checkpoint, false);
    return run(engine, rec, NULL);
}

bft_status bfti_checkpoint(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status = may_checkpoint(engine);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    return run_and_unlock(engine, rec, NULL);
}

bft_status bfti_checkpoint_hold(struct bfti_engine *engine,
                                struct bfti_rec *rec,
                                struct bfti_picture *picture)
{
    bft_status status = may_checkpoint(engine);
    memset(picture, 0, sizeof(*picture));
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    return run_and_unlock(engine, rec, picture);
}

bft_status bfti_checkpoint_space(struct bfti_engine *engine,
                                 struct bfti_rec *rec, bool wait)
{
    struct checkpoint c = {.engine = engine, .rec = rec};
    bft_status status = may_checkpoint(engine);
    if (status != BFT_OK)
        return status;
    if (wait)
        bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    else if (!bfti_mutex_try(&engine->checkpoint_lock))
        return bfti_fail(BFT_BUSY, "a checkpoint is under way");
    status =
        bfti_images_are_whole(engine) ? run(engine, rec, NULL) : make_stage(&c);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

bft_status bfti_checkpoint_try(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status = may_checkpoint(engine);
    if (status != BFT_OK || !bfti_mutex_try(&engine->checkpoint_lock))
        return status;
    return run_and_unlock(engine, rec, NULL);
}
