/*
 * Batches: changes gathered in memory of their own, sorted and committed as one
 * frame and one visible step.
 */
#include "cache.h"
#include "expiry.h"
#include "snapshot.h"
#include "tomb.h"

#include <stdlib.h>

enum {
    MAGIC_BATCH = 0x62667462,
    ARENA_BYTES = 4096,
    /* What an emptied batch keeps for the next changes, at most. */
    KEEP_BYTES = 1 << 16,
    KEEP_ITEMS = 256,
};

struct arena {
    struct arena *next;
    size_t used, cap;
    /* bytes follow */
};

struct item {
    struct bft_tree *handle;
    struct bfti_tree *tree; /* of the commit under way */
    bft_slice key, value;
    uint8_t op;
    uint32_t order; /* of the call, for the last change of a key to win */
};

/* What a commit makes of the items: three arrays in one block. */
struct commit {
    struct bfti_prepared *prepared; /* the block */
    struct bfti_change *changes;
    struct bfti_tree **trees;
    size_t count, cap; /* prepared so far; the block is for so many */
};

struct bft_batch {
    uint32_t magic;
    bft_db *db;
    const struct bfti_env *env;
    struct arena *arena;
    struct item *item;
    size_t count, cap;
    size_t bytes;
    struct commit commit;
    bfti_batch_check *check; /* of a transaction, or NULL */
    void *check_ctx;
};

void bfti_batch_set_check(bft_batch *batch, bfti_batch_check *check, void *ctx)
{
    batch->check = check;
    batch->check_ctx = ctx;
}

static bft_status batch_gate(const bft_batch *batch,
                             struct bfti_engine **engine)
{
    *engine = NULL;
    if (!batch)
        return bfti_fail(BFT_INVALID, "the batch is NULL");
    if (batch->magic != MAGIC_BATCH)
        return bfti_fail(BFT_INVALID, "the batch was freed");
    return bfti_gate(batch->db, engine);
}

bft_status bft_batch_create(bft_db *db, bft_batch **out)
{
    struct bfti_engine *engine;
    bft_batch *batch;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_batch_create: an output is NULL");
    *out = NULL;
    status = bfti_gate(db, &engine);
    if (status != BFT_OK)
        return status;
    batch = bfti_alloc(engine->env, sizeof(*batch));
    if (!batch)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a batch");
    *batch = (bft_batch){.magic = MAGIC_BATCH, .db = db, .env = engine->env};
    *out = batch;
    return BFT_OK;
}

static uint8_t *arena_take(bft_batch *batch, size_t bytes)
{
    struct arena *arena = batch->arena;
    if (!arena || arena->cap - arena->used < bytes) {
        size_t cap = bytes > ARENA_BYTES ? bytes : ARENA_BYTES;
        if (arena && cap < arena->cap * 2 && arena->cap < 1 << 20)
            cap = arena->cap * 2;
        arena = bfti_alloc(batch->env, sizeof(*arena) + cap);
        if (!arena)
            return NULL;
        arena->next = batch->arena;
        arena->used = 0;
        arena->cap = cap;
        batch->arena = arena;
    }
    arena->used += bytes;
    return (uint8_t *)(arena + 1) + arena->used - bytes;
}

static bft_slice arena_copy(uint8_t *to, bft_slice from)
{
    bft_slice copy = {to, from.len};
    if (from.len)
        memcpy(to, from.data, from.len);
    return copy;
}

/* Bytes of a stamp that is to be put before the value. */
static size_t stamp_of(const struct bfti_tree *tree, uint8_t op,
                       uint64_t expires)
{
    return op == BFTI_OP_PUT && tree->ttl_ms && expires != BFTI_EXPIRES_STORED
               ? BFTI_STAMP
               : 0;
}

static bft_status add(bft_batch *batch, bft_tree *tree, uint8_t op,
                      bft_slice key, bft_slice value, uint64_t expires)
{
    struct bfti_engine *engine;
    uint8_t *memory;
    struct item *item;
    struct bfti_tree *inside;
    uint64_t most;
    size_t stamp;
    bft_status status = batch_gate(batch, &engine);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    most = bfti_batch_most(engine);
    if (!tree || tree->magic != BFTI_MAGIC_TREE || tree->db->engine != engine)
        return bfti_fail(BFT_INVALID,
                         "the tree handle is NULL, closed, or of another "
                         "database than the batch");
    if (!value.data && value.len)
        return bfti_fail(BFT_INVALID, "the value is NULL with a length");
    inside = bfti_handle_tree(tree);
    status = bfti_check_expires(inside, expires);
    if (status != BFT_OK)
        return status;
    stamp = stamp_of(inside, op, expires);
    /* A wrong length may be one that makes the sum small. */
    if (value.len > most ||
        batch->bytes + key.len + stamp + value.len + sizeof(*item) > most)
        return bfti_fail(BFT_TOO_BIG,
                         "a batch of more than %llu bytes, 1/8 of the memory "
                         "budget or 512 MiB",
                         (unsigned long long)most);
    if (batch->count == batch->cap) {
        size_t cap = batch->cap ? batch->cap * 2 : 16;
        struct item *grown =
            bfti_realloc(batch->env, batch->item, cap * sizeof(*grown));
        if (!grown)
            return bfti_fail(BFT_NO_MEMORY, "no memory for a batch");
        batch->item = grown;
        batch->cap = cap;
    }
    memory = arena_take(batch, key.len + stamp + value.len);
    if (!memory)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a batch");
    item = &batch->item[batch->count];
    item->handle = tree;
    item->key = arena_copy(memory, key);
    item->value = arena_copy(memory + key.len + stamp, value);
    if (stamp) {
        bfti_stamp_put(memory + key.len,
                       bfti_expires_at(inside, expires, key.len, value.len));
        item->value = (bft_slice){memory + key.len, stamp + value.len};
    }
    item->op = op;
    item->order = (uint32_t)batch->count++;
    batch->bytes += key.len + stamp + value.len + sizeof(*item);
    return BFT_OK;
}

bft_status bfti_batch_put(bft_batch *batch, bft_tree *tree, bft_slice key,
                          bft_slice value, uint64_t expires)
{
    return add(batch, tree, BFTI_OP_PUT, key, value, expires);
}

bft_status bft_batch_put(bft_batch *batch, bft_tree *tree, bft_slice key,
                         bft_slice value)
{
    return add(batch, tree, BFTI_OP_PUT, key, value, BFTI_EXPIRES_DEFAULT);
}

bft_status bft_batch_put_until(bft_batch *batch, bft_tree *tree, bft_slice key,
                               bft_slice value, uint64_t expires_ms)
{
    return add(batch, tree, BFTI_OP_PUT, key, value,
               bfti_expires_wish(expires_ms));
}

bft_status bft_batch_delete(bft_batch *batch, bft_tree *tree, bft_slice key)
{
    bft_slice none = {NULL, 0};
    return add(batch, tree, BFTI_OP_DELETE, key, none, BFTI_EXPIRES_DEFAULT);
}

static void arenas_free(bft_batch *batch, struct arena *arena)
{
    while (arena) {
        struct arena *next = arena->next;
        bfti_free(batch->env, arena);
        arena = next;
    }
}

void bft_batch_clear(bft_batch *batch)
{
    struct arena *last;
    if (!batch || batch->magic != MAGIC_BATCH)
        return;
    last = batch->arena;
    if (last && last->cap <= KEEP_BYTES) {
        arenas_free(batch, last->next);
        last->next = NULL;
        last->used = 0;
    } else {
        arenas_free(batch, last);
        batch->arena = NULL;
    }
    batch->count = 0;
    batch->bytes = 0;
}

void bft_batch_free(bft_batch *batch)
{
    const struct bfti_env *env;
    if (!batch || batch->magic != MAGIC_BATCH)
        return;
    env = batch->env;
    arenas_free(batch, batch->arena);
    bfti_free(env, batch->item);
    bfti_free(env, batch->commit.prepared);
    batch->magic = 0;
    bfti_free(env, batch);
}

size_t bft_batch_bytes(const bft_batch *batch)
{
    return batch ? batch->bytes : 0;
}

size_t bft_batch_count(const bft_batch *batch)
{
    return batch ? batch->count : 0;
}

/* --- commit -------------------------------------------------------------- */

static int item_compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order;
    if (x->tree->id != y->tree->id)
        return x->tree->id < y->tree->id ? -1 : 1;
    order = bfti_key_compare(x->key, y->key);
    if (order)
        return order;
    return x->order < y->order ? -1 : 1;
}

/* The trees that the items are of now: of one that is truncated meanwhile all
 * belong to what was before, or all to what comes instead. */
static void find_trees(bft_batch *batch)
{
    bool same;
    do { /* ends: a round is repeated only after a truncation */
        same = true;
        for (size_t i = 0; i < batch->count; i++) {
            batch->item[i].tree = bfti_handle_tree(batch->item[i].handle);
            PARK("batch:tree-found");
        }
        for (size_t i = 0; i < batch->count && same; i++)
            same = batch->item[i].tree == /* [successor] */
                   bfti_handle_tree(batch->item[i].handle);
    } while (!same);
}

/* Sorted, the last change of each key; returns how many. */
static size_t sort_items(bft_batch *batch)
{
    size_t kept = 0;
    find_trees(batch);
    qsort(batch->item, batch->count, sizeof(*batch->item), item_compare);
    for (size_t i = 0; i < batch->count; i++) {
        const struct item *next = &batch->item[i + 1];
        if (i + 1 < batch->count && next->tree == batch->item[i].tree &&
            bfti_key_compare(next->key, batch->item[i].key) == 0)
            continue;
        batch->item[kept] = batch->item[i];
        /* Should the commit fail, what is added then comes behind. */
        batch->item[kept].order = (uint32_t)kept;
        kept++;
    }
    return kept;
}

/* Room for N in C.  What a large commit took goes with it, see commit_end(). */
static bft_status commit_room(const struct bfti_env *env, struct commit *c,
                              size_t n)
{
    size_t each = sizeof(*c->prepared) + sizeof(*c->changes) +
                  /* NOLINTNEXTLINE(bugprone-sizeof-expression): a pointer */
                  sizeof(*c->trees);
    c->count = 0;
    if (n <= c->cap)
        return BFT_OK;
    bfti_free(env, c->prepared);
    c->cap = n < 16 ? 16 : n;
    c->prepared = bfti_alloc(env, c->cap * each);
    if (!c->prepared) {
        c->cap = 0;
        return bfti_fail(BFT_NO_MEMORY, "no memory to commit a batch");
    }
    c->changes = (struct bfti_change *)(c->prepared + c->cap);
    c->trees = (struct bfti_tree **)(c->changes + c->cap);
    return BFT_OK;
}

static bft_status commit_frame(struct bfti_engine *engine,
                               const struct commit *c,
                               struct bfti_frame **frame)
{
    size_t bytes = 0;
    uint8_t *to;
    void *payload;
    bft_status status;
    for (size_t i = 0; i < c->count; i++)
        bytes += bfti_frame_record_size(&c->prepared[i].logged);
    status = bfti_frame_create(engine->buffer.wal, BFTI_FRAME_WRITE, bytes,
                               frame, &payload);
    if (status != BFT_OK)
        return status;
    to = payload;
    for (size_t i = 0; i < c->count; i++)
        to = bfti_frame_record_put(to, &c->prepared[i].logged);
    bfti_frame_seal(engine->buffer.wal, *frame);
    return BFT_OK;
}

static bft_status prepare_all(struct bfti_engine *engine, struct bfti_rec *rec,
                              const bft_batch *batch, struct commit *c)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < batch->count; i++) {
        const struct item *item = &batch->item[i];
        memset(&c->prepared[i], 0, sizeof(c->prepared[i]));
        status = bfti_change_prepare(engine, rec, item->tree, item->op,
                                     item->key, item->value, &c->prepared[i]);
        if (status != BFT_OK)
            break;
        c->changes[i] = c->prepared[i].change;
        c->trees[i] = item->tree;
        c->count++;
    }
    return status;
}

/* The changes are published, or with a STATUS discarded. */
static void commit_end(struct bfti_engine *engine, struct commit *c,
                       bft_status status)
{
    for (size_t i = 0; i < c->count; i++) {
        if (status == BFT_OK)
            bfti_prepared_done(engine, &c->prepared[i]);
        else
            bfti_prepared_discard(engine, &c->prepared[i]);
    }
    if (c->cap > KEEP_ITEMS) {
        bfti_free(engine->env, c->prepared);
        memset(c, 0, sizeof(*c));
    }
}

/* What the changes cover is kept for the snapshots up to NEWEST. */
static bft_status save_all(struct bfti_engine *engine, struct bfti_rec *rec,
                           const struct commit *c, uint64_t newest)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; newest && status == BFT_OK && i < c->count; i++)
        status = bfti_history_save(engine, rec, c->trees[i], c->changes[i].key,
                                   newest);
    return status;
}

/* No deleted range lies over the changes any more. */
static bft_status clear_all(struct bfti_rec *rec, const struct commit *c)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < c->count; i++)
        status = bfti_tomb_clear(c->trees[i], rec, c->changes[i].key);
    return status;
}

static bft_status commit_publish(struct bfti_engine *engine,
                                 struct bfti_rec *rec, const bft_batch *batch,
                                 struct bfti_frame *frame, uint64_t *end)
{
    const struct commit *c = &batch->commit;
    struct bfti_saver saver = {.engine = engine};
    bft_status status;
    do {
        status = bfti_saver_begin(&saver, rec);
        if (status == BFT_OK)
            status = clear_all(rec, c);
        if (status == BFT_OK)
            status = save_all(engine, rec, c, saver.guard.saved);
        if (status == BFT_OK && batch->check)
            status = batch->check(batch->check_ctx, rec, &saver.guard,
                                  saver.rounds + saver.held);
        PARK("batch:checked");
        if (status == BFT_OK)
            status = bfti_leaf_write_all(engine, rec, c->trees, c->changes,
                                         c->count, frame, &saver.guard, end);
    } while (bfti_saver_again(&saver, &status));
    bfti_saver_end(&saver);
    return status;
}

static bft_status commit(struct bfti_engine *engine, struct bfti_rec *rec,
                         bft_batch *batch, uint64_t *end)
{
    struct commit *c = &batch->commit;
    struct bfti_frame *frame = NULL;
    bft_status status;
    batch->count = sort_items(batch);
    status = commit_room(batch->env, c, batch->count);
    if (status != BFT_OK)
        return status;
    status = prepare_all(engine, rec, batch, c);
    if (status == BFT_OK)
        status = commit_frame(engine, c, &frame);
    if (status == BFT_OK)
        status = commit_publish(engine, rec, batch, frame, end);
    for (size_t i = 0; status == BFT_OK && i < c->count; i++)
        bfti_expires_note(c->trees[i], &c->changes[i]);
    if (status != BFT_OK && frame)
        bfti_frame_drop(engine->buffer.wal, &rec->wal, frame);
    commit_end(engine, c, status);
    return status;
}

/* Was a tree truncated before the commit came to it? */
static bool moved(const bft_batch *batch, bft_status status)
{
    for (size_t i = 0; status == BFT_GONE && i < batch->count; i++)
        if (bfti_handle_moved(batch->item[i].handle, batch->item[i].tree,
                              status))
            return true;
    return false;
}

bft_status bft_batch_commit(bft_batch *batch, bft_durability durability,
                            uint64_t *commit_lsn)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    uint64_t end = 0;
    bft_status status = batch_gate(batch, &engine);
    if (commit_lsn)
        *commit_lsn = 0;
    if (status != BFT_OK)
        return status;
    if ((unsigned)durability > BFT_SYNC)
        return bfti_fail(BFT_INVALID, "durability %d is unknown",
                         (int)durability);
    if (durability > BFT_NONE)
        status = bfti_check_keeps(engine, "no commit survives");
    if (status != BFT_OK)
        return status;
    rec = bfti_rec_current(engine->buffer.threads);
    if (!rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    if (batch->count == 0) {
        /* A stronger commit than those before it, if of nothing. */
        status = bfti_check_writable(engine);
        if (status != BFT_OK)
            return status;
        end = bfti_wal_end(engine->buffer.wal);
        if (commit_lsn)
            *commit_lsn = end;
        bfti_wal_enter(engine->buffer.wal, &rec->wal);
        return bfti_commit(engine, rec, durability, end);
    }
    status = bfti_gate_write(engine, rec, batch->bytes);
    if (status != BFT_OK)
        return status;
    do
        status = commit(engine, rec, batch, &end);
    while (moved(batch, status));
    if (status != BFT_OK)
        return status;
    bfti_count(rec, BFTI_N_BATCHES, 1);
    bfti_count(rec, BFTI_N_BATCH_RECORDS, batch->count);
    bft_batch_clear(batch);
    if (commit_lsn)
        *commit_lsn = end;
    return bfti_commit(engine, rec, durability, end);
}
