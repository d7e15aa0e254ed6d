/*
 * The page table, its latches, its ids, and what a running checkpoint has taken
 * of it.  See place.h and README.md (states and invariants).
 */
#include "place.h"

#include <assert.h>

enum { MID_PARTS = 1024, TOP_MIDS = 4096, EXTRA_CHUNK = 64, REUSE_LOOKS = 64 };
enum { STATE_DIRTY = 1, STATE_SKIPPED = 2, STATE_EPOCH_SHIFT = 2 };

struct mid {
    struct bfti_part *_Atomic part[MID_PARTS];
};

/* A growable stack of ids. */
struct id_stack {
    uint64_t *id;
    size_t count, cap;
};

struct bfti_table {
    const struct bfti_env *env;
    struct mid *_Atomic top[TOP_MIDS];
    struct bfti_mutex lock;   /* ids, growth, extra */
    _Atomic uint64_t next_id; /* under lock for writers */
    _Atomic uint64_t in_use;
    _Atomic uint64_t running;  /* epoch of the running checkpoint, 0 none */
    struct id_stack free_ids;  /* under lock */
    struct id_stack freed_ids; /* under lock: freed while a checkpoint ran */
    struct id_stack extra;     /* under lock */
    bool extra_lost;           /* under lock: no memory for one */
    bool flushing;             /* under lock */
    struct id_stack unflushed; /* under lock: as EXTRA, of a flush */
    bool unflushed_lost;       /* under lock */
    _Atomic size_t parts;
};

bft_status bfti_table_create(const struct bfti_env *env,
                             struct bfti_table **out)
{
    struct bfti_table *table = bfti_alloc(env, sizeof(*table));
    *out = NULL;
    if (!table)
        return bfti_fail(BFT_NO_MEMORY, "no memory for the page table");
    memset(table, 0, sizeof(*table));
    table->env = env;
    atomic_store(&table->next_id, 1); /* id 0 is none */
    *out = table;
    return BFT_OK;
}

void bfti_table_destroy(struct bfti_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < TOP_MIDS; i++) {
        struct mid *mid = atomic_load(&table->top[i]);
        if (!mid)
            continue;
        for (size_t j = 0; j < MID_PARTS; j++) {
            struct bfti_part *part = atomic_load(&mid->part[j]);
            if (part)
                bfti_free(table->env, part->image);
            bfti_free(table->env, part);
        }
        bfti_free(table->env, mid);
    }
    bfti_free(table->env, table->free_ids.id);
    bfti_free(table->env, table->freed_ids.id);
    bfti_free(table->env, table->extra.id);
    bfti_free(table->env, table->unflushed.id);
    bfti_free(table->env, table);
}

size_t bfti_table_parts(const struct bfti_table *table)
{
    return atomic_load(&table->parts);
}

uint64_t bfti_table_ids(const struct bfti_table *table)
{
    return atomic_load(&table->next_id);
}

uint64_t bfti_table_leaves(const struct bfti_table *table)
{
    return atomic_load(&table->in_use);
}

size_t bfti_table_bytes(const struct bfti_table *table)
{
    return sizeof(*table) + bfti_table_parts(table) * sizeof(struct bfti_part);
}

struct bfti_part *bfti_table_part(struct bfti_table *table, size_t i)
{
    struct mid *mid = atomic_load_explicit(&table->top[i / MID_PARTS],
                                           memory_order_acquire); /* [part] */
    return mid ? atomic_load_explicit(&mid->part[i % MID_PARTS],
                                      memory_order_acquire)
               : NULL;
}

/* The part of ID.  There are 2^22 parts at most (TOP_MIDS, MID_PARTS): no number
 * of one is cut short where size_t has 32 bits. */
static size_t part_index(uint64_t id)
{
    return (size_t)(id / BFTI_PART_IDS);
}

static struct bfti_part *part_of(struct bfti_table *table, uint64_t id)
{
    return bfti_table_part(table, part_index(id));
}

struct bfti_entry *bfti_table_entry(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    assert(part);
    return &part->entry[id % BFTI_PART_IDS];
}

/* --- latches ------------------------------------------------------------- */

bool bfti_latch_try(struct bfti_entry *entry)
{
    uint32_t free = 0;
    /* [latch] acquire: what the last holder did happened before. */
    return atomic_compare_exchange_strong(&entry->latch, &free, 1);
}

static bool latch_soon(struct bfti_entry *entry)
{
    for (int spin = 0; spin < 100; spin++) {
        if (atomic_load_explicit(&entry->latch, memory_order_relaxed) == 0 &&
            bfti_latch_try(entry))
            return true;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    return false;
}

bool bfti_latch_within(const struct bfti_env *env, struct bfti_entry *entry,
                       uint64_t ns)
{
    bool got = latch_soon(entry) || atomic_exchange(&entry->latch, 2) == 0;
    if (!got) {
        env->wait(env->ctx, &entry->latch, 2, ns);
        /* Held or not, another may sleep: see bfti_latch. */
        got = atomic_exchange(&entry->latch, 2) == 0;
    }
    bfti_step(env);
    return got;
}

void bfti_latch(const struct bfti_env *env, struct bfti_entry *entry)
{
    /* 2 says that somebody sleeps: the holder wakes only then.  Ends when the
     * holder unlatches, which it does without waiting for I/O. */
    if (!latch_soon(entry))
        while (atomic_exchange(&entry->latch, 2) != 0)
            env->wait(env->ctx, &entry->latch, 2, UINT64_MAX);
    bfti_step(env);
}

void bfti_unlatch(const struct bfti_env *env, struct bfti_entry *entry,
                  bool changed)
{
    if (changed)
        /* [seq] release: a cursor that sees the old number has missed nothing
         * that was published before it looked. */
        atomic_fetch_add_explicit(&entry->seq, 1, memory_order_release);
    if (atomic_exchange(&entry->latch, 0) == 2)
        env->wake(env->ctx, &entry->latch, false);
    bfti_step(env);
}

/* --- ids ----------------------------------------------------------------- */

static bft_status stack_push(const struct bfti_env *env, struct id_stack *stack,
                             uint64_t id)
{
    if (stack->count == stack->cap) {
        size_t cap = stack->cap ? stack->cap * 2 : EXTRA_CHUNK;
        uint64_t *grown = bfti_realloc(env, stack->id, cap * sizeof(*grown));
        if (!grown)
            return bfti_fail(BFT_NO_MEMORY, "no memory for a list of page ids");
        stack->id = grown;
        stack->cap = cap;
    }
    stack->id[stack->count++] = id;
    return BFT_OK;
}

static uint64_t *image_make(const struct bfti_table *table)
{
    uint64_t *image = bfti_alloc(table->env, BFTI_PART_IDS * sizeof(*image));
    if (image)
        memset(image, 0, BFTI_PART_IDS * sizeof(*image));
    return image;
}

/* Under the lock: make part I if it is missing. */
static bft_status part_make(struct bfti_table *table, size_t i)
{
    if (i / MID_PARTS >= TOP_MIDS)
        return bfti_fail(BFT_NO_SPACE, "the page table is full");
    struct mid *mid = atomic_load(&table->top[i / MID_PARTS]);
    if (!mid) {
        mid = bfti_alloc(table->env, sizeof(*mid));
        if (!mid)
            return bfti_fail(BFT_NO_MEMORY, "no memory for the page table");
        memset(mid, 0, sizeof(*mid));
        atomic_store(&table->top[i / MID_PARTS], mid); /* [part] */
    }
    if (atomic_load(&mid->part[i % MID_PARTS]))
        return BFT_OK;
    struct bfti_part *part = bfti_alloc(table->env, sizeof(*part));
    uint64_t running = atomic_load(&table->running);
    uint64_t *image = NULL;
    if (running)
        image = image_make(table);
    if (!part || (running && !image)) {
        bfti_free(table->env, part);
        bfti_free(table->env, image);
        return bfti_fail(BFT_NO_MEMORY, "no memory for the page table");
    }
    memset(part, 0, sizeof(*part));
    part->image = image;
    atomic_store(&part->state, running << STATE_EPOCH_SHIFT | STATE_DIRTY);
    atomic_store(&mid->part[i % MID_PARTS], part); /* [part] */
    if (atomic_load(&table->parts) <= i)
        atomic_store(&table->parts, i + 1);
    return BFT_OK;
}

/* Under the lock: an id that was free when the running checkpoint began, of a part
 * that it visits: there is no leaf in its image yet, and one may still come.  For a
 * part that it skips the last image counts.  0: none of those that were freed last,
 * whose parts have changed since that. */
static uint64_t pop_visited(struct bfti_table *table)
{
    struct id_stack *stack = &table->free_ids;
    for (size_t i = stack->count; i-- > 0 && stack->count - i <= REUSE_LOOKS;) {
        uint64_t id = stack->id[i];
        if (!bfti_part_visited(table, part_of(table, id)))
            continue;
        stack->id[i] = stack->id[--stack->count];
        return id;
    }
    return 0;
}

static bft_status id_alloc(struct bfti_table *table, bool split, uint64_t *id)
{
    bft_status status = BFT_OK;
    *id = 0;
    bfti_mutex_lock(table->env, &table->lock);
    if (atomic_load(&table->running) != 0)
        *id = split ? pop_visited(table) : 0;
    else if (table->free_ids.count)
        *id = table->free_ids.id[--table->free_ids.count];
    if (*id) {
        /* A checkpoint that begins before the id is linked must visit it. */
        (void)bfti_table_change(table, *id);
    } else {
        uint64_t next = atomic_load(&table->next_id);
        status = part_make(table, part_index(next));
        if (status == BFT_OK) {
            *id = next;
            atomic_store(&table->next_id, next + 1);
        }
    }
    if (status == BFT_OK)
        atomic_fetch_add(&table->in_use, 1);
    bfti_mutex_unlock(table->env, &table->lock);
    return status;
}

bft_status bfti_id_alloc(struct bfti_table *table, uint64_t *id)
{
    return id_alloc(table, false, id);
}

bft_status bfti_id_alloc_split(struct bfti_table *table, uint64_t *id)
{
    return id_alloc(table, true, id);
}

void bfti_id_free(struct bfti_table *table, uint64_t id)
{
    bfti_mutex_lock(table->env, &table->lock);
    /* Without memory for the list the id is lost until the next open. */
    (void)stack_push(table->env,
                     atomic_load(&table->running) ? &table->freed_ids
                                                  : &table->free_ids,
                     id);
    atomic_fetch_sub(&table->in_use, 1);
    bfti_mutex_unlock(table->env, &table->lock);
}

/* --- what the running checkpoint has taken ------------------------------- */

static bool bit_get(const struct bfti_part *part, uint64_t id)
{
    unsigned i = (unsigned)(id % BFTI_PART_IDS);
    return atomic_load(&part->gathered[i / 64]) >> (i % 64) & 1;
}

static void bit_set(struct bfti_part *part, uint64_t id)
{
    unsigned i = (unsigned)(id % BFTI_PART_IDS);
    atomic_fetch_or(&part->gathered[i / 64], UINT64_C(1) << (i % 64));
}

static uint64_t gathered_by(struct bfti_table *table, struct bfti_part *part,
                            uint64_t id, uint64_t state)
{
    uint64_t running = atomic_load(&table->running);
    if (running == 0)
        return 0;
    /* The bits of earlier checkpoints are gone before RUNNING is set: this one
     * counts even if the cut has not come to the part yet.  A leaf that counts
     * as taken does so until the end. */
    if (bit_get(part, id))
        return running;
    return state >> STATE_EPOCH_SHIFT == running && (state & STATE_SKIPPED)
               ? running
               : 0;
}

uint64_t bfti_table_change(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    uint64_t state = atomic_load(&part->state);
    /* [part]: the bit is set before the change, in one step with reading
     * whether the checkpoint has passed: it either sees the bit and visits, or
     * we see that it passed. */
    if (!(state & STATE_DIRTY))
        state = atomic_fetch_or(&part->state, STATE_DIRTY);
    return gathered_by(table, part, id, state);
}

uint64_t bfti_table_gathered(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    return gathered_by(table, part, id, atomic_load(&part->state));
}

void bfti_table_inherit(struct bfti_table *table, uint64_t left, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    uint64_t taken = bfti_table_change(table, left), running;
    (void)bfti_table_change(table, id);
    bfti_mutex_lock(table->env, &table->lock);
    running = atomic_load(&table->running);
    /* By an earlier checkpoint, which has ended: not by this one. */
    if (running && taken == running)
        bit_set(part, id);
    else if (running && stack_push(table->env, &table->extra, id) != BFT_OK)
        table->extra_lost = true; /* the checkpoint will give up */
    bfti_mutex_unlock(table->env, &table->lock);
    bfti_flush_moved(table, left, id);
}

/* --- checkpoint ---------------------------------------------------------- */

bft_status bfti_table_cut(struct bfti_table *table, uint64_t epoch)
{
    size_t parts = bfti_table_parts(table);
    /* Before the first bit of this checkpoint can be set: a split marks a new
     * leaf as taken when its left one is in a part that is cut already. */
    for (size_t i = 0; i < parts; i++)
        for (size_t w = 0; w < BFTI_PART_IDS / 64; w++)
            atomic_store(&bfti_table_part(table, i)->gathered[w], 0);
    bfti_mutex_lock(table->env, &table->lock);
    table->extra.count = 0;
    table->extra_lost = false;
    atomic_store(&table->running, epoch);
    parts = bfti_table_parts(table);
    bfti_mutex_unlock(table->env, &table->lock);
    for (size_t i = 0; i < parts; i++) {
        struct bfti_part *part = bfti_table_part(table, i);
        uint64_t state = atomic_load(&part->state), next;
        if (state >> STATE_EPOCH_SHIFT == epoch)
            continue; /* made since the epoch was set */
        do {
            /* The last part may get new ids while we run: visit it. */
            bool visit = (state & STATE_DIRTY) || i + 1 == parts;
            if (visit && !part->image && !(part->image = image_make(table)))
                return bfti_fail(BFT_NO_MEMORY, "no memory for a checkpoint");
            next = epoch << STATE_EPOCH_SHIFT | (visit ? 0 : STATE_SKIPPED);
        } while (!atomic_compare_exchange_weak(&part->state, &state, next));
        PARK("table:part-cut");
    }
    return BFT_OK;
}

bool bfti_part_visited(const struct bfti_table *table,
                       const struct bfti_part *part)
{
    uint64_t state = atomic_load(&part->state);
    return state >> STATE_EPOCH_SHIFT == atomic_load(&table->running) &&
           !(state & STATE_SKIPPED);
}

void bfti_table_take(struct bfti_table *table, uint64_t id, uint64_t word)
{
    struct bfti_part *part = part_of(table, id);
    assert(bfti_part_visited(table, part) && part->image);
    part->image[id % BFTI_PART_IDS] = word;
    bit_set(part, id);
}

uint64_t bfti_table_running(struct bfti_table *table, uint32_t epoch)
{
    uint64_t running = atomic_load(&table->running);
    return running && (uint32_t)running == epoch ? running : 0;
}

void bfti_table_take_for(struct bfti_table *table, uint32_t epoch,
                         const uint64_t *ids, const uint64_t *words, size_t n)
{
    /* The lock keeps the checkpoint, should it give up, from taking its image
     * away. */
    bfti_mutex_lock(table->env, &table->lock);
    if (bfti_table_running(table, epoch))
        for (size_t i = 0; i < n; i++)
            bfti_table_take(table, ids[i], words[i]);
    bfti_mutex_unlock(table->env, &table->lock);
}

bool bfti_table_in_image(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    /* A skipped part has not changed since the last image: all its leaves that
     * a tree still reaches are in it. */
    return !bfti_part_visited(table, part) ||
           part->image[id % BFTI_PART_IDS] != 0;
}

bft_status bfti_table_pop_extra(struct bfti_table *table, uint64_t *id)
{
    bft_status status = BFT_OK;
    *id = 0;
    bfti_mutex_lock(table->env, &table->lock);
    if (table->extra_lost)
        status = bfti_fail(BFT_NO_MEMORY, "no memory to note a split leaf");
    else if (table->extra.count)
        *id = table->extra.id[--table->extra.count];
    bfti_mutex_unlock(table->env, &table->lock);
    return status;
}

void bfti_table_finish(struct bfti_table *table, bool done)
{
    size_t parts = bfti_table_parts(table);
    for (size_t i = 0; i < parts; i++) {
        struct bfti_part *part = bfti_table_part(table, i);
        if (!done && bfti_part_visited(table, part))
            atomic_fetch_or(&part->state, STATE_DIRTY);
    }
    bfti_mutex_lock(table->env, &table->lock);
    atomic_store(&table->running, 0);
    for (size_t i = 0; i < bfti_table_parts(table); i++) {
        struct bfti_part *part = bfti_table_part(table, i);
        bfti_free(table->env, part->image);
        part->image = NULL;
    }
    while (table->freed_ids.count) {
        uint64_t id = table->freed_ids.id[--table->freed_ids.count];
        (void)stack_push(table->env, &table->free_ids, id);
    }
    bfti_mutex_unlock(table->env, &table->lock);
}

bool bfti_part_changed(const struct bfti_part *part)
{
    return (atomic_load(&part->state) & STATE_DIRTY) != 0;
}

/* --- flushing ------------------------------------------------------------ */

bool bfti_flush_has(struct bfti_table *table, uint64_t id)
{
    const struct bfti_part *part = part_of(table, id);
    unsigned i = (unsigned)(id % BFTI_PART_IDS);
    return atomic_load(&part->flushed[i / 64]) >> (i % 64) & 1;
}

void bfti_flush_set(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    unsigned i = (unsigned)(id % BFTI_PART_IDS);
    atomic_fetch_or(&part->flushed[i / 64], UINT64_C(1) << (i % 64));
}

static void flush_clear(struct bfti_table *table, uint64_t id)
{
    struct bfti_part *part = part_of(table, id);
    unsigned i = (unsigned)(id % BFTI_PART_IDS);
    atomic_fetch_and(&part->flushed[i / 64], ~(UINT64_C(1) << (i % 64)));
}

void bfti_flush_begin(struct bfti_table *table)
{
    bfti_mutex_lock(table->env, &table->lock);
    for (size_t i = 0; i < bfti_table_parts(table); i++)
        for (size_t w = 0; w < BFTI_PART_IDS / 64; w++)
            atomic_store(&bfti_table_part(table, i)->flushed[w], 0);
    table->unflushed.count = 0;
    table->unflushed_lost = false;
    table->flushing = true;
    bfti_mutex_unlock(table->env, &table->lock);
}

void bfti_flush_end(struct bfti_table *table)
{
    bfti_mutex_lock(table->env, &table->lock);
    table->flushing = false;
    bfti_mutex_unlock(table->env, &table->lock);
}

void bfti_flush_moved(struct bfti_table *table, uint64_t from, uint64_t to)
{
    bfti_mutex_lock(table->env, &table->lock);
    if (table->flushing && bfti_flush_has(table, from)) {
        /* A new leaf; one that absorbs is what it is without these. */
        if (bfti_entry_word(bfti_table_entry(table, to)) == 0)
            bfti_flush_set(table, to);
    } else if (table->flushing) {
        flush_clear(table, to);
        if (stack_push(table->env, &table->unflushed, to) != BFT_OK)
            table->unflushed_lost = true; /* the flush will give up */
    }
    bfti_mutex_unlock(table->env, &table->lock);
}

bft_status bfti_flush_pop(struct bfti_table *table, uint64_t *id)
{
    bft_status status = BFT_OK;
    *id = 0;
    bfti_mutex_lock(table->env, &table->lock);
    if (table->unflushed_lost)
        status = bfti_fail(BFT_NO_MEMORY, "no memory to note a leaf");
    else if (table->unflushed.count)
        *id = table->unflushed.id[--table->unflushed.count];
    bfti_mutex_unlock(table->env, &table->lock);
    return status;
}

/* --- recovery ------------------------------------------------------------ */

bft_status bfti_table_load(struct bfti_table *table, size_t part_index,
                           const le64 *words, uint64_t place)
{
    bft_status status;
    struct bfti_part *part;
    bfti_mutex_lock(table->env, &table->lock);
    status = part_make(table, part_index);
    bfti_mutex_unlock(table->env, &table->lock);
    if (status != BFT_OK || !words)
        return status;
    part = bfti_table_part(table, part_index);
    part->place = place;
    atomic_store(&part->state, 0);
    for (size_t i = 0; i < BFTI_PART_IDS; i++) {
        uint64_t word = le64_get(words[i]);
        /* Any other would be followed into memory. */
        if (word && !bfti_word_on_disk(word))
            return bfti_fail(
                BFT_CORRUPT,
                "an image of the page table has page %llu at %#llx, which is no "
                "place on disk",
                (unsigned long long)(part_index * BFTI_PART_IDS + i),
                (unsigned long long)word);
        atomic_store(&part->entry[i].word, word);
    }
    return BFT_OK;
}

bft_status bfti_table_loaded(struct bfti_table *table, uint64_t ids)
{
    bft_status status = BFT_OK;
    if (ids > (uint64_t)TOP_MIDS * MID_PARTS * BFTI_PART_IDS)
        return bfti_fail(BFT_CORRUPT,
                         "a page table of %llu ids is larger than any",
                         (unsigned long long)ids);
    bfti_mutex_lock(table->env, &table->lock);
    atomic_store(&table->next_id, ids);
    for (uint64_t id = ids; status == BFT_OK && id-- > 1;) {
        struct bfti_part *part = part_of(table, id);
        if (!part) /* never in an image: all of it is free */
            status = part_make(table, part_index(id));
        if (status != BFT_OK)
            break;
        if (bfti_entry_word(bfti_table_entry(table, id)) == 0)
            status = stack_push(table->env, &table->free_ids, id);
        else
            atomic_fetch_add(&table->in_use, 1);
    }
    bfti_mutex_unlock(table->env, &table->lock);
    return status;
}
