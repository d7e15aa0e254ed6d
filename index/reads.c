/*
 * What a commit has read: while it is being decided nobody changes that.
 *
 * A serializable transaction that writes shows what it read, looks once more whether
 * that is as it was (write_all.c), publishes, and hides it.  Who is about to publish
 * looks, with his latches held, whether somebody shows the key; then he lets them
 * go, and comes again.  So either he sees what is shown, or the commit sees his
 * latch, or that he has kept what the record was: nothing that was read changes from
 * the last look until all writes are visible, and that is when the transaction
 * happens, to those who look at both too.  [reads]
 *
 * Locks of ranges (Eswaran et al., CACM 1976), for the length of a decision; who
 * reads neither sets nor meets them.
 */
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>
#include <stdlib.h>

struct range {
    struct bfti_tree *tree; /* for who shows it only: it stays for him */
    uint32_t tree_id;
    bft_slice low, high; /* HIGH.len 0: up to the end */
};

struct bfti_reads {
    struct bfti_deferred deferred;
    size_t size, count;
    uint8_t *free; /* of the bytes behind the ranges */
    struct range range[];
};

/* --- making --------------------------------------------------------------- */

struct bfti_reads *bfti_reads_make(struct bfti_engine *engine, size_t count,
                                   size_t bytes)
{
    struct bfti_reads *reads;
    size_t size = sizeof(*reads) + count * sizeof(struct range) + bytes;
    reads = bfti_alloc(engine->heap, size);
    if (!reads)
        return NULL;
    memset(reads, 0, sizeof(*reads));
    reads->size = size;
    reads->free = (uint8_t *)&reads->range[count];
    return reads;
}

static bft_slice copy_key(struct bfti_reads *reads, bft_slice key)
{
    bft_slice copy = {reads->free, key.len};
    if (key.len)
        memcpy(reads->free, key.data, key.len);
    reads->free += key.len;
    return copy;
}

void bfti_reads_add(struct bfti_reads *reads, struct bfti_tree *tree,
                    bft_slice low, bft_slice high)
{
    struct range *range = &reads->range[reads->count++];
    range->tree = tree;
    range->tree_id = tree->id;
    range->low = copy_key(reads, low);
    range->high = copy_key(reads, high);
    assert(reads->free <= (uint8_t *)reads + reads->size);
}

static int by_low(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    if (x->tree_id != y->tree_id)
        return x->tree_id < y->tree_id ? -1 : 1;
    return bfti_key_compare(x->low, y->low);
}

/* Does RANGE go on to KEY, or beyond? */
static bool reaches(const struct range *range, bft_slice key)
{
    return range->high.len == 0 || bfti_key_compare(key, range->high) <= 0;
}

void bfti_reads_done(struct bfti_reads *reads)
{
    size_t kept = 0;
    qsort(reads->range, reads->count, sizeof(reads->range[0]), by_low);
    for (size_t i = 0; i < reads->count; i++) {
        const struct range *next = &reads->range[i];
        struct range *last = kept ? &reads->range[kept - 1] : NULL;
        if (!last || last->tree_id != next->tree_id ||
            !reaches(last, next->low))
            reads->range[kept++] = *next;
        else if (last->high.len &&
                 (next->high.len == 0 || !reaches(last, next->high)))
            last->high = next->high;
    }
    reads->count = kept;
}

/* --- showing -------------------------------------------------------------- */

void bfti_reads_show(struct bfti_engine *engine, struct bfti_rec *rec,
                     struct bfti_reads *reads)
{
    atomic_store(&rec->reads, reads);
    atomic_fetch_add(&engine->reads_shown, 1); /* [reads] */
}

void bfti_reads_hide(struct bfti_engine *engine, struct bfti_rec *rec)
{
    atomic_fetch_sub(&engine->reads_shown, 1);
    atomic_store(&rec->reads, NULL); /* [reads] */
}

void bfti_reads_free(struct bfti_engine *engine, struct bfti_reads *reads)
{
    if (!reads)
        return;
    /* [reads] who looks has said so before he saw what is shown. */
    if (atomic_load(&engine->reads_looking))
        bfti_defer_free(engine->buffer.threads, &reads->deferred, reads,
                        reads->size);
    else
        bfti_free(engine->heap, reads);
}

bool bfti_reads_coming(const struct bfti_reads *reads, struct bfti_rec *rec)
{
    for (size_t i = 0; i < reads->count; i++) {
        const struct range *range = &reads->range[i];
        if (atomic_load(&range->tree->tombs) && /* [tomb] */
            bfti_tomb_coming(range->tree, rec, range->low, range->high))
            return true;
    }
    return false;
}

/* --- looking -------------------------------------------------------------- */

/* The last range that begins at KEY or before; NULL: none of the tree. */
static const struct range *find(const struct bfti_reads *reads,
                                uint32_t tree_id, bft_slice key)
{
    struct range wanted = {.tree_id = tree_id, .low = key};
    size_t low = 0, high = reads->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_low(&reads->range[middle], &wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low && reads->range[low - 1].tree_id == tree_id
               ? &reads->range[low - 1]
               : NULL;
}

static bool has_key(const struct bfti_reads *reads, uint32_t tree_id,
                    bft_slice key)
{
    const struct range *range = find(reads, tree_id, key);
    return range &&
           (range->high.len == 0 || bfti_key_compare(key, range->high) < 0);
}

static bool has_some(const struct bfti_reads *reads, uint32_t tree_id,
                     bft_slice low, bft_slice high)
{
    if (has_key(reads, tree_id, low))
        return true;
    /* Or one begins behind LOW. */
    for (size_t i = 0; i < reads->count; i++) {
        const struct range *range = &reads->range[i];
        if (range->tree_id == tree_id &&
            bfti_key_compare(low, range->low) <= 0 &&
            (high.len == 0 || bfti_key_compare(range->low, high) < 0))
            return true;
    }
    return false;
}

bool bfti_reads_over(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key)
{
    struct bfti_engine *engine = tree->engine;
    bool over = false;
    atomic_fetch_add(&engine->reads_looking, 1); /* [reads] */
    bfti_read_begin(rec);
    for (struct bfti_rec *other = bfti_rec_first(engine->buffer.threads);
         other && !over; other = other->next) {
        const struct bfti_reads *reads =
            other == rec ? NULL : atomic_load(&other->reads); /* [reads] */
        over = reads && has_key(reads, tree->id, key);
    }
    bfti_read_end(rec);
    atomic_fetch_sub(&engine->reads_looking, 1);
    return over;
}

bool bfti_reads_of(struct bfti_tree *tree, struct bfti_rec *rec,
                   struct bfti_rec *writer, bft_slice low, bft_slice high)
{
    struct bfti_engine *engine = tree->engine;
    const struct bfti_reads *reads;
    bool of;
    atomic_fetch_add(&engine->reads_looking, 1); /* [reads] */
    bfti_read_begin(rec);
    reads = atomic_load(&writer->reads); /* [reads] */
    of = reads && has_some(reads, tree->id, low, high);
    bfti_read_end(rec);
    atomic_fetch_sub(&engine->reads_looking, 1);
    return of;
}
