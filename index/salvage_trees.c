/*
 * Salvage: trees.  In the new database each has a name of ours until all is
 * there, so that the log may rename and replace trees in any order, and so that
 * what an unfinished salvage left does not pass for the database.
 */
#include <stdio.h>

#include "catalogue.h"
#include "salvage.h"
#include "tomb.h"

enum { UNIQUE_TRIES = 1000 };

/* --- by id --------------------------------------------------------------- */

/* Index of the first tree whose id is at least ID. */
static size_t position(const struct salvage *s, uint32_t id)
{
    size_t low = 0, high = s->tree_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->tree[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct salvage_tree *bfti_salvage_find(const struct salvage *s, uint32_t id)
{
    size_t at = position(s, id);
    return at < s->tree_count && s->tree[at]->id == id ? s->tree[at] : NULL;
}

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a tree to be salvaged");
}

static bft_status add(struct salvage *s, uint32_t id, uint32_t leaf_bytes,
                      struct salvage_tree **out)
{
    size_t at = position(s, id);
    *out = NULL;
    if (s->tree_count == s->tree_cap) {
        size_t cap = s->tree_cap ? s->tree_cap * 2 : 16;
        struct salvage_tree **grown =
            /* NOLINTNEXTLINE(bugprone-sizeof-expression): of pointers */
            bfti_realloc(s->env, s->tree, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        s->tree = grown;
        s->tree_cap = cap;
    }
    *out = bfti_alloc(s->env, sizeof(**out));
    if (!*out)
        return no_memory();
    memset(*out, 0, sizeof(**out));
    (*out)->id = id;
    (*out)->leaf_bytes = bfti_tree_check_leaf_bytes(leaf_bytes) == BFT_OK
                             ? leaf_bytes
                             : SALVAGE_LEAF_BYTES;
    for (size_t i = s->tree_count++; i > at; i--)
        s->tree[i] = s->tree[i - 1];
    s->tree[at] = *out;
    return BFT_OK;
}

void bfti_salvage_trees_free(struct salvage *s)
{
    for (size_t i = 0; i < s->tree_count; i++) {
        bfti_free(s->env, s->tree[i]->first);
        bfti_free(s->env, s->tree[i]->tombs);
        bfti_free(s->env, s->tree[i]);
    }
    bfti_free(s->env, s->tree);
}

/* --- in the new database ------------------------------------------------- */

enum { WORK_NAME = 32 };

/* By the two letters that WHAT begins with.  Short, as the catalogue of the new
 * database must have room for all of them at once, and may have had none for
 * longer ones.  A tree of the old one that happens to be called so is called by
 * its id. */
static void work_name(const struct salvage *s, const char *what, uint32_t id,
                      char name[WORK_NAME])
{
    (void)snprintf(name, WORK_NAME, "~%.2s%04x%lx", what,
                   (unsigned)(s->tag & 0xffff), (unsigned long)id);
}

static bft_status make(struct salvage *s, const char *what, uint32_t id,
                       uint32_t leaf_bytes, uint64_t ttl_ms, bft_tree **out)
{
    bft_tree_options options;
    char name[WORK_NAME];
    memset(&options, 0, sizeof(options));
    options.size = sizeof(options);
    options.leaf_bytes = leaf_bytes;
    options.ttl_ms = ttl_ms;
    work_name(s, what, id, name);
    return bft_tree_open(s->to, name, &options, out);
}

bft_status bfti_salvage_work_tree(struct salvage *s, const char *what,
                                  uint32_t id, bft_tree **out)
{
    return make(s, what, id, SALVAGE_LEAF_BYTES, 0, out);
}

static bft_status drop(struct salvage *s, const char *what, uint32_t id,
                       bft_tree **tree)
{
    char name[WORK_NAME];
    if (!*tree)
        return BFT_OK;
    *tree = NULL;
    work_name(s, what, id, name);
    return bft_tree_drop(s->to, name);
}

static bft_status drop_notes(struct salvage *s, struct salvage_tree *tree)
{
    bft_status status = drop(s, "cover", tree->id, &tree->cover);
    return status == BFT_OK ? drop(s, "changed", tree->id, &tree->changed)
                            : status;
}

static bft_status drop_tree(struct salvage *s, struct salvage_tree *tree)
{
    bft_status status = drop(s, "tree", tree->id, &tree->target);
    if (status == BFT_OK)
        status = drop_notes(s, tree);
    tree->dropped = true;
    return status;
}

static bft_status have_target(struct salvage *s, struct salvage_tree *tree)
{
    return tree->target ? BFT_OK
                        : make(s, "tree", tree->id, tree->leaf_bytes,
                               tree->ttl_ms, &tree->target);
}

bft_status bfti_salvage_tree(struct salvage *s, uint32_t id, bool before,
                             struct salvage_tree **out)
{
    struct salvage_tree *tree = bfti_salvage_find(s, id);
    bft_status status = BFT_OK;
    *out = NULL;
    if (tree ? tree->dropped : id == 0 || (s->catalogue && before))
        return BFT_OK;
    if (!tree)
        status = add(s, id, SALVAGE_LEAF_BYTES, &tree);
    if (status == BFT_OK)
        status = have_target(s, tree);
    if (status == BFT_OK)
        *out = tree;
    return status;
}

/* --- names --------------------------------------------------------------- */

/* A tree other than ID that has NAME, or NULL. */
static struct salvage_tree *named(const struct salvage *s, const char *name,
                                  uint32_t id)
{
    for (size_t i = 0; i < s->tree_count; i++) {
        struct salvage_tree *tree = s->tree[i];
        if (tree->named && !tree->dropped && tree->id != id &&
            strcmp(tree->name, name) == 0)
            return tree;
    }
    return NULL;
}

static void set_name(struct salvage_tree *tree, const char *name, uint64_t lsn)
{
    (void)snprintf(tree->name, sizeof(tree->name), "%s", name);
    tree->named = true;
    tree->named_at = lsn;
}

/* Ranges that were deleted, whose records pages may have still. */
static bft_status keep_tombs(struct salvage *s, struct salvage_tree *tree,
                             const struct bfti_catalogue_entry *entry)
{
    if (entry->tombs_len == 0 || tree->tombs)
        return BFT_OK;
    tree->tombs = bfti_alloc(s->env, entry->tombs_len);
    if (!tree->tombs)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a deleted range");
    memcpy(tree->tombs, entry->tombs, entry->tombs_len);
    tree->tombs_len = entry->tombs_len;
    return BFT_OK;
}

bft_status bfti_salvage_tombs(struct salvage *s)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; i < s->tree_count && status == BFT_OK; i++) {
        const struct salvage_tree *tree = s->tree[i];
        const uint8_t *at = tree->tombs; /* NULL: none */
        const uint8_t *end = at ? at + tree->tombs_len : NULL;
        bft_slice low, high;
        while (at && status == BFT_OK && tree->target && !tree->dropped &&
               bfti_tombs_next(&at, end, &low, &high))
            status = bft_delete_range(tree->target, low, high, NULL);
    }
    return status;
}

/* Have the dictionaries that pages of the tree need, in the order of their
 * numbers. */
static bft_status read_dictionaries(struct salvage *s,
                                    const struct bfti_catalogue_entry *entry)
{
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < entry->dictionary_count; i++) {
        struct bfti_extent_info info;
        const void *raw;
        size_t len;
        status = bfti_extent_read(s->source.pf, entry->dictionaries[i],
                                  &s->rec->scratch[BFTI_SCRATCH_VALUE], &info,
                                  &raw, &len);
        if (status == BFT_OK &&
            (info.type != BFTI_EXTENT_DICTIONARY || info.tree_id != entry->id))
            status = bfti_fail(BFT_CORRUPT, "it is no dictionary of its tree");
        if (status == BFT_OK)
            status = bfti_codec_offer(s->source.pf, &info, raw, len);
        if (!salvage_is_damage(status))
            continue;
        bfti_salvage_extent(s, entry->dictionaries[i], 0, entry->id);
        s->dictionary_lost = true;
        status = BFT_OK;
    }
    return status;
}

/* Does tree ID, which the newest catalogue has without a name, get one from the
 * log?  What does not is a history, or was not loaded to the end. */
static bool may_be_named(const struct salvage *s, uint32_t id)
{
    bool named = s->log.gaps > 0 || s->log.segment_missing;
    for (size_t i = 0; !named && i < s->loads.count; i++)
        named = s->loads.place[i] == id;
    return named;
}

/* What the catalogue says of one tree. */
static bft_status take_entry(struct salvage *s,
                             const struct bfti_catalogue_entry *entry,
                             bool exact)
{
    struct salvage_tree *tree = bfti_salvage_find(s, entry->id);
    bft_status status = BFT_OK;
    if (!tree)
        status = add(s, entry->id, entry->leaf_bytes, &tree);
    if (status != BFT_OK)
        return status;
    tree->ttl_ms = entry->ttl_ms;
    if (bfti_tree_check_name(entry->name) == BFT_OK)
        set_name(tree, entry->name, s->catalogue_lsn);
    tree->loading = entry->name[0] == 0;
    if (exact && tree->loading)
        tree->dropped = !may_be_named(s, entry->id);
    if (exact && !tree->dropped)
        status = have_target(s, tree);
    if (status == BFT_OK && exact)
        status = keep_tombs(s, tree, entry);
    return status == BFT_OK ? read_dictionaries(s, entry) : status;
}

bft_status bfti_salvage_catalogue(struct salvage *s, uint64_t place, bool exact,
                                  bool *whole)
{
    struct bfti_catalogue catalogue;
    struct bfti_catalogue_entry entry;
    const void *raw;
    size_t len;
    bft_status status =
        bfti_salvage_meta(s, place, BFTI_EXTENT_CATALOGUE, UINT64_MAX, whole,
                          &s->catalogue_lsn, &raw, &len);
    if (status != BFT_OK || !*whole)
        return status;
    bfti_catalogue_begin(&catalogue, raw, len);
    while (status == BFT_OK && catalogue.left) {
        if (!bfti_catalogue_next(&catalogue, &entry)) {
            (void)bfti_fail(BFT_CORRUPT, "the catalogue is cut off");
            bfti_salvage_extent(s, place, 0, 0);
            exact = false;
            break;
        }
        status = take_entry(s, &entry, exact);
    }
    s->catalogue = true;
    s->catalogue_exact = exact;
    return status;
}

bft_status bfti_salvage_created(struct salvage *s, uint64_t lsn,
                                const struct bfti_frame_tree *made)
{
    char name[BFTI_NAME_MAX + 1];
    uint32_t id = made->id;
    struct salvage_tree *tree = bfti_salvage_find(s, id), *other;
    bft_status status = BFT_OK;
    bfti_frame_name(made->name, name);
    other = named(s, name, id);
    if (bfti_tree_check_name(name) != BFT_OK || id == 0 ||
        (tree && tree->dropped))
        return BFT_OK;
    /* A name that is taken: the tree that has it is truncated, as older logs
     * have it, unless a frame that is lost renamed it. */
    if (other && other->id < id && other->named_at >= s->gap_end)
        status = drop_tree(s, other);
    else if (other)
        other->named = false;
    if (status == BFT_OK && !tree)
        status = add(s, id, made->leaf_bytes, &tree);
    if (status == BFT_OK && made->ttl_ms)
        tree->ttl_ms = made->ttl_ms;
    if (status == BFT_OK)
        status = have_target(s, tree);
    if (status == BFT_OK)
        set_name(tree, name, lsn);
    return status;
}

bft_status bfti_salvage_dropped(struct salvage *s, uint32_t id)
{
    struct salvage_tree *tree = bfti_salvage_find(s, id);
    bft_status status = BFT_OK;
    if (!tree && id != 0) /* so that no frame behind it makes it */
        status = add(s, id, SALVAGE_LEAF_BYTES, &tree);
    return status == BFT_OK && tree ? drop_tree(s, tree) : status;
}

/* --- at the end ---------------------------------------------------------- */

/* Call TREE by its name, or by its id when that is lost or taken. */
static bft_status name_tree(struct salvage *s, const struct salvage_tree *tree)
{
    char old[WORK_NAME], name[WORK_NAME];
    bft_status status = BFT_EXISTS;
    work_name(s, "tree", tree->id, old);
    if (tree->named)
        status = bft_tree_rename(s->to, old, tree->name);
    if (status != BFT_EXISTS)
        return status;
    (void)snprintf(name, sizeof(name), "tree-%lu", (unsigned long)tree->id);
    for (int i = 2; status == BFT_EXISTS && i < UNIQUE_TRIES; i++) {
        status = bft_tree_rename(s->to, old, name);
        (void)snprintf(name, sizeof(name), "tree-%lu-%d",
                       (unsigned long)tree->id, i);
    }
    s->report.trees_unnamed++;
    return status;
}

/* Trees whose bulk load was not done go, as in recovery, unless the frame that
 * says so may be among what is lost. */
static bft_status drop_unfinished(struct salvage *s)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < s->tree_count; i++) {
        struct salvage_tree *tree = s->tree[i];
        if (tree->loading && !tree->named && !tree->dropped &&
            s->catalogue_exact && s->report.log_gaps == 0)
            status = drop_tree(s, tree);
    }
    return status;
}

bft_status bfti_salvage_name_trees(struct salvage *s)
{
    bft_status status = drop_unfinished(s);
    if (status == BFT_OK)
        status = drop(s, "pages", 0, &s->order);
    if (status == BFT_OK)
        status = drop(s, "orphans", 0, &s->orphans);
    for (size_t i = 0; status == BFT_OK && i < s->tree_count; i++)
        status = drop_notes(s, s->tree[i]);
    /* Trees that have a name first: it may be one that we would give. */
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; status == BFT_OK && i < s->tree_count; i++) {
            const struct salvage_tree *tree = s->tree[i];
            if (!tree->target || tree->named != (pass == 0))
                continue;
            status = name_tree(s, tree);
            s->report.trees++;
        }
    return status;
}
